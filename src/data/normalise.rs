//! Mean and standard deviation per channel.

/// The map from stored to normalised values, per channel; a single number is for all channels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalise {
    /// Subtracted; 0 where there is none.
    pub mean: Option<Vec<f32>>,
    /// Divided by; 1 where there is none.
    pub std: Option<Vec<f32>>,
}

impl Normalise {
    /// These numbers; others where there are none.
    pub fn or(&self, other: &Normalise) -> Normalise {
        let first =
            |one: &Option<Vec<f32>>, other: &Option<Vec<f32>>| one.as_ref().or(other.as_ref()).cloned();
        Normalise { mean: first(&self.mean, &other.mean), std: first(&self.std, &other.std) }
    }
}

/// (value − mean) / std, per channel.
pub(super) struct Normaliser {
    mean: Vec<f32>,
    std: Vec<f32>,
    /// Of every pixel, `[c, 256]`.
    pixels: Vec<f32>,
}

impl Normaliser {
    /// For images of `c` channels.
    ///
    /// # Errors
    /// As [`per_channel`].
    pub fn new(normalise: &Normalise, c: usize) -> Result<Normaliser, String> {
        let (mean, std) = per_channel(normalise, c)?;
        let mut normaliser = Normaliser { mean, std, pixels: vec![] };
        let value = |at: usize| normaliser.of((at % 256) as f32 / 255.0, at / 256);
        normaliser.pixels = (0..256 * c).map(value).collect();
        Ok(normaliser)
    }

    /// Pixels `[.., c]` as inputs.
    pub fn apply(&self, pixels: &[u8], x: &mut [f32]) {
        let c = self.mean.len();
        for (pixels, x) in pixels.chunks_exact(c).zip(x.chunks_exact_mut(c)) {
            let values = self.pixels.chunks_exact(256);
            x.iter_mut().zip(pixels).zip(values).for_each(|((x, &p), values)| *x = values[usize::from(p)]);
        }
    }

    /// A value from 0 to 1, or as it was stored.
    pub fn of(&self, value: f32, channel: usize) -> f32 {
        (value - self.mean[channel]) / self.std[channel]
    }
}

/// Mean and std of each of `c` channels.
///
/// # Errors
/// Where there are others than one or `c` of them, a mean is not finite, or a std is not finite and above 0, in words.
pub(super) fn per_channel(normalise: &Normalise, c: usize) -> Result<(Vec<f32>, Vec<f32>), String> {
    let each = |values: &Option<Vec<f32>>, default: f32, name: &str| match values.as_deref() {
        None => Ok(vec![default; c]),
        Some([one]) => Ok(vec![*one; c]),
        Some(many) if many.len() == c => Ok(many.to_vec()),
        Some(many) => {
            let (found, s) = (many.len(), if c == 1 { "" } else { "s" });
            Err(format!(
                "has {c} channel{s}, and {name} has {found} values: one for each channel, or one for all, is --{name}"
            ))
        }
    };
    let (mean, std) = (each(&normalise.mean, 0.0, "mean")?, each(&normalise.std, 1.0, "std")?);
    if let Some(mean) = mean.iter().find(|mean| !mean.is_finite()) {
        return Err(format!("cannot be normalised: a mean is {mean}, where a finite number was expected"));
    }
    if let Some(std) = std.iter().find(|std| !std.is_finite() || **std <= 0.0) {
        return Err(format!(
            "cannot be normalised: a std is {std}, where a finite number above 0 was expected"
        ));
    }
    Ok((mean, std))
}
