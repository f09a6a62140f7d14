//! Memory and launches.
#![expect(unsafe_code, reason = "launches without bound checks, see the parent module")]

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::super::{contiguous, elem, empty, empty_like, plane_each};
use super::{CrossEntropyRows, Losses, kernels};

/// Room for the results of `rows` rows.
fn room(logits: &CubeTensor, rows: usize) -> [CubeTensor; 2] {
    [logits.dtype, DType::F32].map(|dtype| empty(logits, [rows].into(), dtype))
}

impl CrossEntropyRows for CubeBackend {
    fn class_losses(
        logits: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        let [logits, classes, weights] = [logits, classes, weights].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtypes) = (logits.client.clone(), [elem(&logits), elem(&classes)]);
        let [losses, log_sums] = room(&logits, rows);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: a class, a loss and a sum for each of `rows` rows of `width` logits; weights of `width` classes.
        unsafe {
            kernels::loss_of_classes::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                classes.into_buffer_arg(),
                weights.into_buffer_arg(),
                losses.clone().into_buffer_arg(),
                log_sums.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtypes,
            );
        }
        Losses { losses, log_sums }
    }

    fn share_losses(
        logits: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        weighted: bool,
    ) -> Losses<Self> {
        let [logits, shares, weights] = [logits, shares, weights].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtype) = (logits.client.clone(), elem(&logits));
        let [losses, log_sums] = room(&logits, rows);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: shares of the shape of the logits, a loss and a sum for each row, weights of `width` classes.
        unsafe {
            kernels::loss_of_shares::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                shares.into_buffer_arg(),
                weights.into_buffer_arg(),
                losses.clone().into_buffer_arg(),
                log_sums.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtype,
            );
        }
        Losses { losses, log_sums }
    }

    fn class_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        classes: IntTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self> {
        let [logits, log_sums, classes, weights, dy] =
            [logits, log_sums, classes, weights, dy].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtypes) = (logits.client.clone(), [elem(&logits), elem(&classes)]);
        let dx = empty_like(&logits);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: as in the forward pass; `dx` has the shape of the logits, `dy` that of the losses.
        unsafe {
            kernels::gradient_of_classes::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                log_sums.into_buffer_arg(),
                classes.into_buffer_arg(),
                weights.into_buffer_arg(),
                dy.into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtypes,
            );
        }
        dx
    }

    fn share_gradient(
        logits: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        shares: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        weighted: bool,
    ) -> FloatTensor<Self> {
        let [logits, log_sums, shares, weights, dy] = [logits, log_sums, shares, weights, dy].map(contiguous);
        let [rows, width] = logits.meta.shape().dims();
        let (client, dtype) = (logits.client.clone(), elem(&logits));
        let dx = empty_like(&logits);
        let (count, dim) = plane_each(&logits, rows);
        // SAFETY: as in the forward pass; `dx` has the shape of the logits, `dy` that of the losses.
        unsafe {
            kernels::gradient_of_shares::launch_unchecked(
                &client,
                count,
                dim,
                logits.into_buffer_arg(),
                log_sums.into_buffer_arg(),
                shares.into_buffer_arg(),
                weights.into_buffer_arg(),
                dy.into_buffer_arg(),
                dx.clone().into_buffer_arg(),
                rows,
                width,
                weighted,
                dtype,
            );
        }
        dx
    }
}
