# Two and four ranks train to the weights of one rank with the joined batch. Part of scripts/slurm-check.

# trained NAME RANKS ARGUMENTS...: 50 steps into a folder of their own.
trained() {
    local runs=$work/$1 ranks=$2
    shift 2
    mkdir -p "$runs"
    RAYON_NUM_THREADS=1 timeout 120 srun --quiet --nodes="$ranks" --ntasks="$ranks" --kill-on-bad-exit=1 --mpi=pmix \
        "$harvest" train --quiet --config "$recipe" --data "$work/photos" --device cpu --steps 50 \
        --set training.checkpoint_every=50 --set run.folder="$runs" "$@"
}

# equal NAME TOLERANCE ARGUMENTS...
equal() {
    local name=$1 tolerance=$2 ranks
    shift 2
    for ranks in 1 2 4; do
        trained "$name-$ranks" "$ranks" "$@"
    done
    for ranks in 2 4; do
        look compare "$work/$name-1" "$work/$name-$ranks" "$tolerance"
    done
}

# Sums are taken in another order, and 50 steps carry that on; SGD, since AdamW's first steps divide rounding by rounding.
sgd=(--set training.optimizer=sgd --set training.lr=0.02)
check equality-resnet 90 equal resnet 1e-4 "${sgd[@]}" --set distribution.sync_batch_norm=true
check equality-vit 90 equal vit 1e-4 "${sgd[@]}" --model vit_tiny_patch2_32 --set model.image_size=16 --set training.batch=4
