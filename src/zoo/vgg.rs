//! VGG (Simonyan & Zisserman 2015) as torchvision and timm name it, with and without batch norm. The gaps between the
//! numbers of `features` show where max pooling is. Adaptive pooling brings the image to the size that the first linear
//! layer reads.
//!
//! ```text
//! features.{i} (convolution, batch norm) | classifier.{0,3,6}, or pre_logits.{fc1,fc2} head.fc
//! ```

use serde_json::Value;

use super::rows;
use crate::net::{Builder, Conv, Network, Shape, Source, Window};
use crate::{Error, Result};

pub(super) fn fits(source: &dyn Source) -> bool {
    let head = source.has("classifier.0.weight") || source.has("pre_logits.fc1.weight");
    head && source.shape("features.0.weight").is_some_and(|shape| shape.len() == 4)
}

pub(super) fn compose(source: &mut dyn Source, image: Shape, _: &Value, names: &[String]) -> Result<Network> {
    let number =
        |name: &String| name.strip_prefix("features.")?.strip_suffix(".weight")?.parse::<usize>().ok();
    let mut numbers: Vec<usize> = names.iter().filter_map(number).collect();
    numbers.retain(|i| source.shape(&format!("features.{i}.weight")).is_some_and(|shape| shape.len() == 4));
    numbers.sort_unstable();
    let normed = source.has("features.1.running_mean");
    let plain = if normed { 3 } else { 2 }; // convolution, batch norm, ReLU

    let (mut b, mut x) = Builder::new(source, image);
    for (at, &i) in numbers.iter().enumerate() {
        let weight = format!("features.{i}.weight");
        let (outputs, kernel) = (rows(&b, &weight)?, b.side(&weight, 2)?);
        x = b.conv(x, &format!("features.{i}"), outputs, Conv::square(kernel, 1, kernel / 2))?;
        if normed {
            x = b.batch_norm(x, &format!("features.{}", i + 1))?;
        }
        x = b.relu(x);
        match numbers.get(at + 1).map(|next| next - i) {
            Some(gap) if gap == plain => {}
            None => x = b.max_pool(x, Window { size: 2, stride: 2, padding: 0 })?,
            Some(gap) if gap == plain + 1 => x = b.max_pool(x, Window { size: 2, stride: 2, padding: 0 })?,
            Some(gap) => {
                return Err(Error::config(format!(
                    "features.{i} is followed by a gap of {gap}; no VGG has one"
                )));
            }
        }
    }
    let timm = b.has("pre_logits.fc1.weight");
    let head = if timm {
        ["pre_logits.fc1", "pre_logits.fc2", "head.fc"]
    } else {
        ["classifier.0", "classifier.3", "classifier.6"]
    };
    let first = format!("{}.weight", head[0]);
    let reads = match timm {
        true => b.side(&first, 2)? * b.side(&first, 3)?,
        false => b.side(&first, 1)? / b.shape(x).c.max(1),
    };
    let side = (reads as f64).sqrt().round() as usize;
    if side != b.shape(x).h || side != b.shape(x).w {
        x = b.adaptive_pool(x, side, side);
    }
    x = b.flatten(x);
    for (i, name) in head.iter().enumerate() {
        if i > 0 {
            x = b.relu(x);
        }
        let outputs = rows(&b, &format!("{name}.weight"))?;
        x = b.linear(x, name, outputs)?;
    }
    b.finish(x)
}
