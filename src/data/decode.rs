//! Decodes one picture: PNG, JPEG, WebP, BMP, TIFF or PGM, PPM and the like, to 8 bits per channel, grey or RGB.
//!
//! The rules are those of Pillow's `Image.open(f).convert("RGB")`, by which torchvision, timm and Hugging Face read, but for
//! grey of 16 bits, which Pillow cuts off at 255. What a file is shows its content and not its name. Palettes become
//! their colours. Alpha is dropped. Of 16 bits the upper eight are kept.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::picture::{Decoded, MOST_PIXELS, Picture};

/// Decodes a file; its picture is turned as its EXIF data say where `exif` asks for it.
///
/// # Errors
/// Where it is damaged, cut off or of another kind, in words.
pub(super) fn decode(bytes: &[u8], exif: bool) -> Result<Decoded, String> {
    // Decoders of other crates may panic at a damaged file, which then is one damaged file and not the end of the process.
    let decoded = std::panic::catch_unwind(|| decoded(bytes, exif));
    decoded.unwrap_or_else(|_| Err("is damaged in a way that its decoder does not expect".into()))
}

fn decoded(bytes: &[u8], exif: bool) -> Result<Decoded, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let format = reader.format().ok_or_else(|| match bytes.is_empty() {
        true => "is empty".to_string(),
        false => "is no picture: PNG, JPEG, WebP, BMP, TIFF or PGM was expected".to_string(),
    })?;
    if format == ImageFormat::Jpeg && !is_complete_jpeg(bytes) {
        return Err("is a JPEG without its end (truncated?)".into());
    }
    let name = format!("{format:?}").to_uppercase();
    let damaged = |error: image::ImageError| format!("is no readable {name}: {error}");
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let in_png = || png_exif(bytes).and_then(orientation).and_then(Orientation::from_exif);
    let (w, h) = decoder.dimensions();
    if u64::from(w) * u64::from(h) > MOST_PIXELS as u64 {
        return Err(format!("has {w} x {h} pixels; at most {MOST_PIXELS} are read, as by Pillow"));
    }
    let orientation = match format {
        ImageFormat::Png => in_png(),
        _ => decoder.orientation().ok(),
    };
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if exif {
        image.apply_orientation(orientation);
    }
    let mut picture = plain(image)?;
    // The palette of a BMP may be grey, which its decoder does not tell from colour.
    let palette = format == ImageFormat::Bmp && matches!(bytes.get(28..30), Some([1..=8, 0]));
    if palette && picture.pixels.chunks_exact(picture.c).all(|p| p.iter().all(|value| *value == p[0])) {
        picture = picture.with_channels(1);
    }
    Ok(Decoded { picture, turned: orientation != Orientation::NoTransforms })
}

/// Eight bits per channel, without alpha.
fn plain(image: DynamicImage) -> Result<Picture, String> {
    let (h, w) = (image.height() as usize, image.width() as usize);
    let first = |pixels: Vec<u8>, of: usize, kept: usize| match of == kept {
        true => pixels,
        false => pixels.chunks_exact(of).flat_map(|pixel| &pixel[..kept]).copied().collect(),
    };
    let upper = |pixels: Vec<u16>| pixels.into_iter().map(|value| (value >> 8) as u8).collect::<Vec<u8>>();
    let (c, pixels) = match image {
        DynamicImage::ImageLuma8(image) => (1, image.into_raw()),
        DynamicImage::ImageLumaA8(image) => (1, first(image.into_raw(), 2, 1)),
        DynamicImage::ImageRgb8(image) => (3, image.into_raw()),
        DynamicImage::ImageRgba8(image) => (3, first(image.into_raw(), 4, 3)),
        DynamicImage::ImageLuma16(image) => (1, upper(image.into_raw())),
        DynamicImage::ImageLumaA16(image) => (1, first(upper(image.into_raw()), 2, 1)),
        DynamicImage::ImageRgb16(image) => (3, upper(image.into_raw())),
        DynamicImage::ImageRgba16(image) => (3, first(upper(image.into_raw()), 4, 3)),
        other => {
            return Err(format!(
                "has pixels of type {:?}; 8 and 16 bits per channel are read",
                other.color()
            ));
        }
    };
    Ok(Picture { h, w, c, pixels })
}

/// The EXIF data of a PNG: its chunk `eXIf`.
fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, kind) = (u32::from_be_bytes(*rest.first_chunk()?) as usize, rest.get(4..8)?);
        if kind == b"eXIf" {
            return rest.get(8..length.checked_add(8)?);
        }
        rest = rest.get(length.checked_add(12)?..)?;
    }
}

/// The orientation in EXIF data, 1 to 8: tag 0x112 of the first directory of a TIFF.
fn orientation(exif: &[u8]) -> Option<u8> {
    let little = exif.starts_with(b"II");
    let number = |at: usize, bytes: usize| {
        let digits = exif.get(at..at.checked_add(bytes)?)?;
        let place = |i: usize| if little { bytes - 1 - i } else { i };
        Some((0..bytes).fold(0usize, |number, i| number << 8 | usize::from(digits[place(i)])))
    };
    let directory = number(4, 4)?;
    let entry = |i: usize| directory.checked_add(2 + 12 * i);
    let found = (0..number(directory, 2)?).filter_map(entry).find(|&at| number(at, 2) == Some(0x112))?;
    u8::try_from(number(found.checked_add(8)?, 2)?).ok()
}

/// Whether a JPEG has its end marker after its first scan. Decoders fill up what is missing with grey.
fn is_complete_jpeg(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Segments up to the first scan: 0xff, a kind, and a length that counts its own two bytes.
    loop {
        match bytes.get(at..at + 4) {
            Some(&[0xff, 0xff, ..]) => at += 1,
            Some(&[0xff, 0xda, ..]) => break,
            Some(&[0xff, kind, high, low]) => {
                let alone = kind == 1 || (0xd0..=0xd8).contains(&kind);
                at += if alone { 2 } else { 2 + usize::from(u16::from_be_bytes([high, low])) };
            }
            _ => return false,
        }
    }
    bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9])
}
