//! How far two runs of the same training are apart.
//!
//! Runs that differ in the order of sums only differ by rounding, which training then magnifies: where a gradient is near
//! zero AdamW makes a whole step of either sign of it. So single numbers are not compared, but whole tensors, by the
//! Euclidean length of their difference over that of the way they have come. What a weight loses each time it is stored is
//! left out: a factor near 1 that hardly moves would seem far apart by that alone.

use harvest_models::NamedTensors;

/// What storing does to a tensor over some tens of updates, relative to its length: each rounds to 6e-8 at most, to either
/// side.
const STORING: f64 = 5e-7;

/// The tensor by which two runs differ most.
#[derive(Debug, Clone, PartialEq)]
pub struct Apart {
    /// Its name.
    pub name: String,
    /// `‖one − other‖ / ‖one − start‖`, without what storing explains; of a tensor that has not moved, the length of the
    /// difference.
    pub relative: f64,
}

/// Tensors that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not in all three, or not of one size")]
pub struct Incomparable {
    /// The first such tensor.
    pub name: String,
}

/// Compares the tensors of two runs that began with `start`.
///
/// # Errors
/// If they are not of one network.
pub fn apart(start: &NamedTensors, one: &NamedTensors, other: &NamedTensors) -> Result<Apart, Incomparable> {
    let mut worst = Apart { name: String::new(), relative: 0.0 };
    if let Some(name) = start.keys().chain(other.keys()).find(|name| !one.contains_key(*name)) {
        return Err(Incomparable { name: name.clone() });
    }
    for (name, one) in one {
        let incomparable = || Incomparable { name: name.clone() };
        let (start, other) = start.get(name).zip(other.get(name)).ok_or_else(incomparable)?;
        if start.shape() != one.shape() || other.shape() != one.shape() {
            return Err(incomparable());
        }
        let one: Vec<f64> = one.iter::<f64>().collect();
        let length = |from: &burn::tensor::TensorData| {
            one.iter().zip(from.iter::<f64>()).map(|(one, from)| (one - from).powi(2)).sum::<f64>().sqrt()
        };
        let explained = STORING * one.iter().map(|one| one * one).sum::<f64>().sqrt();
        let (moved, difference) = (length(start), length(other));
        // Not `f64::max`, which passes over what is not a number.
        let difference = if difference < explained { 0.0 } else { difference - explained };
        let relative = if moved > 0.0 { difference / moved } else { difference };
        // What is no number is the worst of all.
        if relative > worst.relative || relative.is_nan() {
            worst = Apart { name: name.clone(), relative };
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn tensors(values: [f32; 2]) -> NamedTensors {
        NamedTensors::from([("w".to_owned(), TensorData::new(values.to_vec(), [2]))])
    }

    #[test]
    fn a_difference_counts_by_the_way_that_was_come() {
        let (start, one) = (tensors([1.0, 1.0]), tensors([4.0, 5.0]));
        assert_eq!(apart(&start, &one, &one).expect("of one network").relative, 0.0);
        let found = apart(&start, &one, &tensors([4.0, 5.5])).expect("of one network");
        assert!(found.name == "w" && (found.relative - 0.1).abs() < 1e-5, "{found:?}");
        let stored = apart(&start, &one, &tensors([4.0, 5.000_001])).expect("of one network");
        assert_eq!(stored.relative, 0.0);
        let diverged = apart(&start, &one, &tensors([f32::NAN, 5.0])).expect("of one network");
        assert!(diverged.relative.is_nan());
        assert!(apart(&start, &one, &NamedTensors::new()).is_err());
        assert!(apart(&NamedTensors::new(), &one, &one).is_err());
    }
}
