//! A page of HTML in the making, and how numbers are written on it.

use std::fmt::Write;

use crate::device;

const STYLE: &str = include_str!("style.css");

/// Text for HTML and SVG, between tags and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// What a banner tells: its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Nothing to judge.
    Neutral,
    /// Something was lost.
    Warning,
    /// What was asked for did not happen.
    Bad,
    /// More happened than was asked for.
    Odd,
}

impl Tone {
    /// The class of the style sheet.
    fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Neutral => "neutral",
            Tone::Warning => "warning",
            Tone::Bad => "bad",
            Tone::Odd => "odd",
        }
    }
}

/// Bytes in base64 (RFC 4648), for data URIs.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Pictures of one sample, and what stands below them.
pub struct Shot {
    /// PNG files, and what they show in words.
    pub images: Vec<(Vec<u8>, String)>,
    pub caption: String,
    pub below: String,
}

/// A page in the making.
pub struct Page {
    body: String,
}

impl Page {
    pub fn new(title: &str) -> Page {
        let body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{0}</title>\n<style>\n{STYLE}</style>\n\
             </head>\n<body>\n<main>\n<h1>{0}</h1>\n",
            escaped(title)
        );
        Page { body }
    }

    /// Adds markup unescaped.
    fn add(&mut self, markup: &str) {
        self.body.push_str(markup);
        self.body.push('\n');
    }

    pub fn heading(&mut self, text: &str) {
        self.add(&format!("<h2>{}</h2>", escaped(text)));
    }

    pub fn paragraph(&mut self, text: &str) {
        self.add(&format!("<p>{}</p>", escaped(text)));
    }

    /// A verdict, and the numbers behind it.
    pub fn banner(&mut self, tone: Tone, verdict: &str, text: &str) {
        self.add(&format!(
            "<p class=\"banner {}\"><strong>{}</strong> {}</p>",
            tone.class(),
            escaped(verdict),
            escaped(text)
        ));
    }

    /// A command or a hash, in a monospaced font.
    pub fn verbatim(&mut self, text: &str) {
        self.add(&format!("<pre>{}</pre>", escaped(text)));
    }

    pub fn list(&mut self, items: &[String]) {
        let items: String = items.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
        if !items.is_empty() {
            self.add(&format!("<ul>{items}</ul>"));
        }
    }

    /// A list of names and values.
    pub fn facts(&mut self, class: &str, facts: &[(&str, String)]) {
        let fact = |(name, text): &(&str, String)| {
            format!("<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(text))
        };
        self.add(&format!(
            "<dl class=\"{class}\">{}</dl>",
            facts.iter().map(fact).collect::<Vec<_>>().join("\n")
        ));
    }

    /// A table with a class of the style sheet; the first cell of a row is its heading.
    pub fn table(&mut self, class: &str, head: &[&str], rows: &[Vec<String>]) {
        let mut table = format!("<div class=\"wide {class}\"><table>\n<thead><tr>");
        let mut put = |text: std::fmt::Arguments| {
            let _ = table.write_fmt(text); // a String takes everything
        };
        head.iter().for_each(|cell| put(format_args!("<th scope=\"col\">{}</th>", escaped(cell))));
        put(format_args!("</tr></thead>\n<tbody>\n"));
        for row in rows {
            for (i, cell) in row.iter().enumerate() {
                match i {
                    0 => put(format_args!("<tr><th scope=\"row\">{}</th>", escaped(cell))),
                    _ => put(format_args!("<td>{}</td>", escaped(cell))),
                }
            }
            put(format_args!("</tr>\n"));
        }
        put(format_args!("</tbody></table></div>"));
        self.add(&table);
    }

    /// Pictures side by side, with a class of the style sheet.
    pub fn gallery(&mut self, class: &str, shots: impl IntoIterator<Item = Shot>) {
        self.add(&format!("<div class=\"gallery {class}\">"));
        for Shot { images, caption, below } in shots {
            let image = |(file, alt): &(Vec<u8>, String)| {
                format!("<img src=\"data:image/png;base64,{}\" alt=\"{}\"/>", base64(file), escaped(alt))
            };
            let images: String = images.iter().map(image).collect();
            self.add(&format!(
                "<figure><div>{images}</div><figcaption>{}<small>{}</small></figcaption></figure>",
                escaped(&caption),
                escaped(&below)
            ));
        }
        self.add("</div>");
    }

    /// Charts side by side, where the page is wide enough.
    pub fn charts(&mut self, charts: &[String]) {
        self.add(&format!("<div class=\"charts\">\n{}</div>", charts.concat()));
    }

    /// A part that is collapsed until it is opened.
    pub fn folded(&mut self, summary: &str, fill: impl FnOnce(&mut Page)) {
        self.add(&format!("<details><summary>{}</summary>", escaped(summary)));
        fill(self);
        self.add("</details>");
    }

    pub fn finish(mut self, device: &device::Report, seconds: f64) -> String {
        let text = format!(
            "scrubjay {}; {}; {} threads; {}",
            env!("CARGO_PKG_VERSION"),
            device.name,
            device.threads,
            duration(seconds),
        );
        self.add(&format!("<footer>{}</footer>\n</main>\n</body>\n</html>", escaped(&text)));
        self.body
    }
}

/// A number with `digits` digits after the point, or a dash for none.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.filter(|value| value.is_finite()).map_or("–".into(), |value| format!("{value:.digits$}"))
}

/// A share in per cent.
pub fn percent(share: f64) -> String {
    format!("{} %", number(Some(100.0 * share), 1))
}

/// A count with a comma after every third digit from the right.
pub fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A time in the unit that people would use.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.2} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let of = ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(|text| base64(text.as_bytes()));
        assert_eq!(of, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"]);
        assert_eq!(base64(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([1.234, 75.0, 180.0, 9000.0].map(duration), ["1.23 s", "75 s", "3 min", "2.5 h"]);
        assert_eq!([number(Some(f64::NAN), 1), number(None, 1), number(Some(0.25), 1)], ["–", "–", "0.2"]);
        assert_eq!(percent(0.5), "50.0 %");
    }
}
