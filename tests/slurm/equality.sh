# Two and four ranks train to the weights of one rank with the joined batch. Part of scripts/slurm-check.

# trained NAME RANKS ARGUMENTS...: 50 steps into a folder of their own.
trained() {
    local runs=$work/$1 ranks=$2
    shift 2
    mkdir -p "$runs"
    RAYON_NUM_THREADS=1 timeout 120 srun --quiet --nodes="$ranks" --ntasks="$ranks" --kill-on-bad-exit=1 --mpi=pmix \
        "$harvest" train --quiet --config "$recipe" --data "$work/photos" --device cpu \
        --set training.steps=50 --set training.checkpoint_every=50 --set run.folder="$runs" "$@"
}

# equal NAME TOLERANCE ARGUMENTS...: apart by less than that part of the way.
equal() {
    local name=$1 tolerance=$2 ranks
    shift 2
    # A step of no size tells where all of them begin.
    trained "$name-0" 1 "$@" --set training.steps=1 --set training.lr=1e-12
    for ranks in 1 2 4; do
        trained "$name-$ranks" "$ranks" "$@"
    done
    for ranks in 2 4; do
        look compare "$work/$name-0" "$work/$name-1" "$work/$name-$ranks" "$tolerance"
    done
}

# Were statistics not joined, the same comparison would tell.
resnet() {
    equal resnet 5e-2 "$@" --set distribution.sync_batch_norm=true
    trained resnet-apart 2 "$@"
    ! look compare "$work/resnet-0" "$work/resnet-1" "$work/resnet-apart" 0.2
    look compare "$work/resnet-0" "$work/resnet-1" "$work/resnet-4" 5e-2
}

# Sums are taken in another order. On photographs, whose backgrounds are alike everywhere, rectifiers carry that on: one rank
# with a learning rate of another sixth digit was apart from itself by 1e-2 with the residual network. SGD, since AdamW divides
# rounding by rounding where there is no gradient.
check equality-resnet 90 resnet --set training.optimizer=sgd --set training.lr=2e-4
check equality-vit 90 equal vit 5e-3 --set training.optimizer=sgd --set training.lr=1e-3 --set training.batch=4 \
    --model vit_tiny_patch2_32 --set model.image_size=8
