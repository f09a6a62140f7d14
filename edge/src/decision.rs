//! From logits to an answer, or to none.

use crate::bundle::Confidence;

/// What the model says of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Place of the most probable class.
    pub class: usize,
    /// Its probability.
    pub confidence: f32,
    /// Whether that is too little for an answer.
    pub abstained: bool,
    /// For each class; sum 1.
    pub probabilities: Vec<f32>,
}

/// Probabilities are the softmax of logits divided by the temperature; below `reject_below` there is no answer.
/// Nothing if a logit is no number.
pub fn decide(logits: &[f32], meaning: Confidence) -> Option<Prediction> {
    if logits.is_empty() || !logits.iter().all(|logit| logit.is_finite()) {
        return None;
    }
    let temperature = meaning.temperature.unwrap_or(1.0);
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Of equal ones the first.
    let class = logits.iter().position(|&logit| logit == largest)?;
    let powers: Vec<f64> =
        logits.iter().map(|&logit| ((f64::from(logit) - f64::from(largest)) / temperature).exp()).collect();
    let total: f64 = powers.iter().sum();
    let probabilities: Vec<f32> = powers.iter().map(|power| (power / total) as f32).collect();
    let confidence = probabilities[class];
    let abstained = meaning.reject_below.is_some_and(|least| powers[class] / total < least);
    Some(Prediction { class, confidence, abstained, probabilities })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_follows_the_temperature_and_decides() {
        let logits = [0.0, 2.0f32.ln(), 2.0f32.ln()];
        let with = |temperature, reject_below| Confidence { temperature, reject_below };
        let plain = decide(&logits, with(None, None)).expect("numbers");
        assert_eq!((plain.class, plain.abstained), (1, false));
        assert!((plain.confidence - 0.4).abs() < 1e-6);
        let hot = decide(&logits, with(Some(1e6), Some(0.35))).expect("numbers");
        assert!((hot.confidence - 1.0 / 3.0).abs() < 1e-6 && hot.abstained);
        assert!(!decide(&logits, with(None, Some(0.399))).expect("numbers").abstained);
    }

    #[test]
    fn what_is_no_number_is_no_answer() {
        let plain = Confidence::default();
        assert_eq!(decide(&[], plain), None);
        assert_eq!(decide(&[1.0, f32::NAN], plain), None);
        assert_eq!(decide(&[1.0, f32::INFINITY], plain), None);
        let far = decide(&[-3e38, 3e38], Confidence { temperature: Some(1e-3), reject_below: None })
            .expect("numbers");
        assert_eq!(far.probabilities, [0.0, 1.0]);
    }
}
