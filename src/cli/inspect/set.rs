//! What `inspect --data` prints about a set of samples.

use std::path::Path;

use scrubjay::Error;
use scrubjay::data::{self, InputKind, Labels, Loaded, Normalise};
use scrubjay::net::Shape;
use serde_json::{Value, json};

/// The samples of each class, or with each label.
fn counts(loaded: &Loaded) -> Vec<usize> {
    let names = loaded.names.classes.as_ref().map_or(0, Vec::len);
    let mut counts = vec![0; loaded.samples.y.outputs().max(names)];
    match &loaded.samples.y {
        Labels::Classes(classes) => classes.iter().for_each(|&class| counts[class as usize] += 1),
        Labels::Multi { labels, rows } => rows.chunks_exact(*labels).for_each(|row| {
            counts.iter_mut().zip(row).for_each(|(count, &bit)| *count += bit as usize);
        }),
    }
    counts
}

fn name(loaded: &Loaded, class: usize) -> Option<&String> {
    loaded.names.classes.as_ref()?.get(class)
}

/// The set as JSON.
pub fn json(loaded: &Loaded) -> Value {
    let classes = counts(loaded).into_iter().enumerate();
    let class = |(i, count)| json!({"class": i, "name": name(loaded, i), "samples": count});
    let (input, tokens) = match loaded.samples.kind {
        InputKind::Image(Shape { h, w, c }) => (Some([c, h, w]), None),
        InputKind::Text { tokens } => (None, Some(tokens)),
    };
    let Normalise { mean, std } = &loaded.normalise;
    json!({
        "preprocess": loaded.pipeline,
        "mean": mean,
        "std": std,
        "samples": loaded.samples.y.len(),
        "input": input,
        "tokens": tokens,
        "labels": loaded.samples.y.width(),
        "classes": classes.map(class).collect::<Vec<_>>(),
    })
}

/// Writes an image as it is before mean and std.
pub fn write_image(path: &Path, loaded: &Loaded, i: usize) -> scrubjay::Result<()> {
    let n = loaded.samples.y.len();
    let InputKind::Image(shape) = loaded.samples.kind else {
        return Err(Error::config("--image-out is for images, and --data holds texts"));
    };
    if i >= n {
        return Err(Error::config(format!("--index {i}: there are {n} images, the first is 0")));
    }
    data::write_png(path, shape, &loaded.samples.image(i)?, &loaded.normalise)
}

/// Prints the set: a line for each class with its number, its name and the number of its samples.
pub fn print(loaded: &Loaded) {
    println!("samples     {}", loaded.samples.y.len());
    match loaded.samples.kind {
        InputKind::Image(Shape { h, w, c }) => {
            println!("images      {c} x {h} x {w} (channels, height, width)");
        }
        InputKind::Text { tokens } => println!("texts       {tokens} tokens"),
    }
    if let Some(pipeline) = &loaded.pipeline {
        println!("pixels      {pipeline}; then 0 to 255 as 0 to 1");
    }
    let Normalise { mean, std } = &loaded.normalise;
    if mean.is_some() || std.is_some() {
        let list = |values: &Option<Vec<f32>>, usual| match values {
            Some(values) => values.iter().map(f32::to_string).collect::<Vec<_>>().join(", "),
            None => String::from(usual),
        };
        println!("normalised  (value - mean) / std, mean {}, std {}", list(mean, "0"), list(std, "1"));
    }
    let counts = counts(loaded);
    let width = (0..counts.len()).filter_map(|i| name(loaded, i)).map(|name| name.chars().count()).max();
    let heading = if loaded.samples.y.width() > 1 { "label" } else { "class" };
    let width = width.unwrap_or(0);
    println!("\n{heading:>7}  {:<width$}  samples", if width > 0 { "name" } else { "" });
    for (i, count) in counts.iter().enumerate() {
        println!("{i:>7}  {:<width$}  {count:>7}", name(loaded, i).map_or("", |name| name));
    }
}
