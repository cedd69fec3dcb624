//! What `inspect --data` prints about a set of samples.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::data::{self, InputKind, Labels, Loaded, Normalise, Pipeline, Samples};
use crate::error::{Error, Result};
use crate::net::Shape;

/// A class, or a label.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassCount {
    /// Its number.
    pub class: usize,
    /// Its name.
    pub name: Option<String>,
    /// The samples of the class, or with the label.
    pub samples: usize,
}

/// A set of samples: how many, their shape, how they were brought to it, and their classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SetInspection {
    /// The steps by which pixels became the inputs; none where the data are no pixels.
    pub preprocess: Option<Pipeline>,
    /// The mean per channel that was subtracted.
    pub mean: Option<Vec<f32>>,
    /// The deviation per channel that was divided by.
    pub std: Option<Vec<f32>>,
    /// How many there are.
    pub samples: usize,
    /// Of images: channels, height and width.
    pub input: Option<[usize; 3]>,
    /// Of texts: tokens.
    pub tokens: Option<usize>,
    /// Numbers of label per sample: 1, or one per label.
    pub labels: usize,
    /// The classes, or labels, by number.
    pub classes: Vec<ClassCount>,
}

impl From<&Loaded> for SetInspection {
    fn from(loaded: &Loaded) -> SetInspection {
        let Loaded { samples, names, pipeline, normalise, .. } = loaded;
        SetInspection::of(samples, names.classes.as_deref(), pipeline.clone(), normalise)
    }
}

impl SetInspection {
    /// Inspects samples, with the names of their classes and how they were made.
    pub fn of(
        samples: &Samples,
        names: Option<&[String]>,
        preprocess: Option<Pipeline>,
        normalise: &Normalise,
    ) -> SetInspection {
        let mut counts = vec![0; samples.y.outputs().max(names.map_or(0, <[String]>::len))];
        match &samples.y {
            Labels::Classes(classes) => classes.iter().for_each(|&class| counts[class as usize] += 1),
            Labels::Multi { labels, rows } => rows.chunks_exact(*labels).for_each(|row| {
                counts.iter_mut().zip(row).for_each(|(count, &bit)| *count += bit as usize);
            }),
        }
        let (input, tokens) = match samples.kind {
            InputKind::Image(Shape { h, w, c }) => (Some([c, h, w]), None),
            InputKind::Text { tokens } => (None, Some(tokens)),
        };
        let name = |class: usize| names.and_then(|names| names.get(class)).cloned();
        let classes = counts.into_iter().enumerate();
        SetInspection {
            preprocess,
            mean: normalise.mean.clone(),
            std: normalise.std.clone(),
            samples: samples.y.len(),
            input,
            tokens,
            labels: samples.y.width(),
            classes: classes
                .map(|(class, samples)| ClassCount { class, name: name(class), samples })
                .collect(),
        }
    }

    /// The text that `inspect` prints: a line for each class with its number, its name and the number of its samples.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            let _ = writeln!(out, "{text}"); // a string takes everything
        };
        line(format!("samples     {}", self.samples));
        if let Some([c, h, w]) = self.input {
            line(format!("images      {c} x {h} x {w} (channels, height, width)"));
        }
        if let Some(tokens) = self.tokens {
            line(format!("texts       {tokens} tokens"));
        }
        if let Some(pipeline) = &self.preprocess {
            line(format!("pixels      {pipeline}; then 0 to 255 as 0 to 1"));
        }
        if self.mean.is_some() || self.std.is_some() {
            let list = |values: &Option<Vec<f32>>, usual| match values {
                Some(values) => values.iter().map(f32::to_string).collect::<Vec<_>>().join(", "),
                None => String::from(usual),
            };
            line(format!(
                "normalised  (value - mean) / std, mean {}, std {}",
                list(&self.mean, "0"),
                list(&self.std, "1")
            ));
        }
        let named = self.classes.iter().filter_map(|class| class.name.as_ref());
        let width = named.map(|name| name.chars().count()).max().unwrap_or(0);
        let heading = if self.labels > 1 { "label" } else { "class" };
        line(format!("\n{heading:>7}  {:<width$}  samples", if width > 0 { "name" } else { "" }));
        for ClassCount { class, name, samples } in &self.classes {
            line(format!("{class:>7}  {:<width$}  {samples:>7}", name.as_deref().unwrap_or("")));
        }
        out
    }
}

/// Writes image `i` of a set as it is before mean and std, as a PNG file.
///
/// # Errors
/// Where the samples are texts, there is no such image, or it is of other than 1 or 3 channels; where the file cannot be
/// written.
pub fn write_image(path: &Path, samples: &Samples, normalise: &Normalise, i: usize) -> Result<()> {
    let n = samples.y.len();
    let InputKind::Image(shape) = samples.kind else {
        return Err(Error::config("--image-out is for images, and --data holds texts"));
    };
    if i >= n {
        return Err(Error::config(format!("--index {i}: there are {n} images, the first is 0")));
    }
    data::write_png(path, shape, &samples.image(i)?, normalise)
}
