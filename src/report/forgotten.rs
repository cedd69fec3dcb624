//! The samples of a request as a reader sees them: their pictures or first words, their classes, what the model answers;
//! and where in a picture a convolutional network is active.

use super::page::{Page, Shot, number, thousands};
use crate::data::{Labels, Names, Shown, first_shown, map_png, thumbnails};
use crate::error::Result;
use crate::net::{Network, NodeId, activation_maps, evaluate, mapped};
use crate::session::Session;

/// The most samples that are shown, and of these with maps.
const SHOWN: usize = 24;
const MAPS: usize = 6;

/// Shows the first of the samples at these indices, with the model's answers, and those of the model `after` where it is
/// known; nothing where the session is to show none.
///
/// # Errors
/// Where a sample cannot be read any more, or the device fails.
pub fn forgotten(
    page: &mut Page,
    session: &Session,
    chosen: &[usize],
    after: Option<&Network>,
) -> Result<()> {
    let (samples, names) = (session.samples(), session.names());
    let few = &chosen[..chosen.len().min(SHOWN)];
    if !session.shows_samples() || few.is_empty() {
        return Ok(());
    }
    let shown = first_shown(SHOWN, few, &samples.y, names);
    let before = answers(session, session.network(), few)?;
    let after_words = after.map(|net| answers(session, net, few)).transpose()?;
    let answer = |i: usize| match &after_words {
        Some(after) => format!("{} → {}", before[i], after[i]),
        None => before[i].clone(),
    };
    page.heading("The samples");
    let all = if few.len() < chosen.len() { "The first " } else { "" };
    let answers =
        if after.is_some() { "what the models before → after answer" } else { "what the model answers" };
    let pictures = thumbnails(samples, few, session.normalise())?;
    let stretched = match &pictures {
        Some(pictures) if pictures.stretched => {
            " Brightness is stretched from the least value to the greatest."
        }
        _ => "",
    };
    page.paragraph(&format!(
        "{all}{} of {}: index, class, and {answers}.{stretched}",
        few.len(),
        thousands(chosen.len())
    ));
    match pictures {
        Some(pictures) => {
            let shot = |((file, one), i): ((Vec<u8>, &Shown), usize)| Shot {
                images: vec![(file, format!("sample {}", one.index))],
                caption: format!("{}: {}", one.index, one.class),
                below: answer(i),
            };
            page.gallery("shots", pictures.files.into_iter().zip(&shown).zip(0..).map(shot));
            if let Some(after) = after {
                maps(page, session, &few[..few.len().min(MAPS)], after)?;
            }
        }
        None => {
            let row = |(one, i): (&Shown, usize)| {
                let name = one.name.clone().unwrap_or("–".into());
                vec![one.index.to_string(), name, one.class.clone(), answer(i)]
            };
            let rows: Vec<Vec<String>> = shown.iter().zip(0..).map(row).collect();
            page.table("words", &["sample", "begins", "class", "answer"], &rows);
        }
    }
    Ok(())
}

/// The names of the classes, or of the labels, that a network answers.
fn answers(session: &Session, net: &Network, few: &[usize]) -> Result<Vec<String>> {
    let samples = session.samples();
    let predicted = evaluate(session.device(), net, &samples.subset(few))?.predicted;
    let labels = match &samples.y {
        Labels::Classes(_) => Labels::Classes(predicted),
        Labels::Multi { labels, .. } => Labels::Multi { labels: *labels, rows: predicted },
    };
    let names = Names { samples: None, ..session.names().clone() };
    let word = |one: Shown| if one.class.is_empty() { "none".into() } else { one.class };
    let all: Vec<usize> = (0..few.len()).collect();
    Ok(first_shown(SHOWN, &all, &labels, &names).into_iter().map(word).collect())
}

/// Maps of a convolution before and after, on one scale for each sample.
fn maps(page: &mut Page, session: &Session, few: &[usize], after: &Network) -> Result<()> {
    let (before, samples) = (session.network(), session.samples());
    let Some(node) = mapped(before).filter(|_| before.nodes.len() == after.nodes.len()) else {
        return Ok(());
    };
    let inputs = samples.subset(few);
    let of = |net| activation_maps(session.device(), net, &inputs, node);
    let (before_maps, after_maps) = (of(before)?, of(after)?);
    let pictures = thumbnails(samples, few, session.normalise())?;
    let shape = before.nodes[node.index()].shape;
    let len = shape.h * shape.w;
    page.heading("Where the network is active");
    page.paragraph(&format!(
        "The mean absolute activation over the {} channels of {} ({} × {}), from black for none to white for the sample's \
         largest: the image, the map before, the map after.",
        shape.c,
        name(before, node),
        shape.h,
        shape.w
    ));
    let mut shots = vec![];
    let pairs = before_maps.chunks_exact(len).zip(after_maps.chunks_exact(len));
    for ((file, &index), (one, other)) in
        pictures.into_iter().flat_map(|pictures| pictures.files).zip(few).zip(pairs)
    {
        let most = one.iter().chain(other).copied().fold(f32::MIN_POSITIVE, f32::max);
        let png = |map: &[f32]| map_png(shape.h, shape.w, map, most);
        let mean = |map: &[f32]| number(Some(f64::from(map.iter().sum::<f32>()) / len as f64), 3);
        shots.push(Shot {
            images: vec![
                (file, format!("sample {index}")),
                (png(one)?, format!("map before of sample {index}")),
                (png(other)?, format!("map after of sample {index}")),
            ],
            caption: index.to_string(),
            below: format!("mean {} → {}", mean(one), mean(other)),
        });
    }
    page.gallery("maps", shots);
    Ok(())
}

/// The name of a node's layer.
fn name(net: &Network, node: NodeId) -> &str {
    net.nodes[node.index()].op.layer().map_or("a layer", |layer| net.layers[layer.index()].name.as_str())
}
