//! The section `[labels]`: unequal classes and doubtful labels. Each key works with any algorithm.

use serde::{Deserialize, Serialize};

use crate::algorithms::AlgorithmName;
use crate::bounds::Lower::From;
use crate::bounds::Upper::{Below, Upto};
use crate::bounds::{Invalid, range};

/// What is done about unequal classes and doubtful labels; by default nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelConfig {
    /// Which labelled images a step takes: `images`, each as often as any other; `classes`, each class as often as any
    /// other, so that images of rare classes come more often.
    pub sampling: Sampling,
    /// Share of a label that is spread evenly over all classes, from 0 to below 1: Szegedy et al., CVPR 2016,
    /// arXiv:1512.00567, section 7. 0.1 is common.
    pub smoothing: f64,
    /// τ ≥ 0: during training, τ times the logarithm of each class's frequency among the labelled images is added to the
    /// logits of labelled images, so that predictions do not lean towards frequent classes: Menon et al., ICLR 2021,
    /// arXiv:2007.07314, equation 10. 1 balances the classes; 0 is off.
    pub logit_adjustment: f64,
    /// For percentage bins: width, in bins, over which a label is spread to its neighbours as `exp(-distance / width)`, so
    /// that a near miss costs less than a far one: Díaz and Marathe, CVPR 2019, equation 1. 0 is off, 0.5 is mild.
    pub ordinal_width: f64,
    /// What the predictions that pseudo-labels are made from are aligned to, on average over the unlabelled images.
    pub alignment: AlignmentTarget,
}

/// How labelled images are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// All images alike.
    #[default]
    Images,
    /// All classes alike.
    Classes,
}

/// What pseudo-labels are aligned to: ReMixMatch, arXiv:1911.09785, section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlignmentTarget {
    /// Nothing; what the algorithm does by itself stays.
    #[default]
    Off,
    /// All classes equally frequent.
    Uniform,
    /// Classes as frequent as among the labelled images.
    Labelled,
}

impl LabelConfig {
    /// Shares and strengths in range; no alignment on top of an algorithm's own.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self, algorithm: AlgorithmName) -> Result<(), Invalid> {
        range("labels.smoothing", self.smoothing, From(0.0), Below(1.0))?;
        range("labels.logit_adjustment", self.logit_adjustment, From(0.0), Upto(f64::MAX))?;
        range("labels.ordinal_width", self.ordinal_width, From(0.0), Upto(f64::MAX))?;
        let own = match algorithm {
            AlgorithmName::AdaMatch | AlgorithmName::SoftMatch | AlgorithmName::ReMixMatch => {
                "aligns by itself"
            }
            AlgorithmName::SelfTraining => "makes its pseudo-labels before it begins",
            AlgorithmName::Supervised => "makes no pseudo-labels",
            _ => return Ok(()),
        };
        match self.alignment {
            AlignmentTarget::Off => Ok(()),
            _ => {
                let reason = format!("must be \"off\" with {algorithm}, which {own}");
                Err(Invalid { key: "labels.alignment", reason })
            }
        }
    }
}
