//! The elements of an SVG drawing. `attributes` are written as they are: a class of the style sheet, or colours.

use std::fmt::{Arguments, Write};

use super::page::escaped;

/// An attribute that names a class of the style sheet.
pub fn class(name: &str) -> String {
    format!("class=\"{name}\"")
}

/// A line of text at a position; `anchor` is `start`, `middle` or `end`.
pub fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    add(
        out,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escaped(text)),
    );
}

/// A line of text that starts at a position and runs down at 45 degrees.
pub fn slanted(out: &mut String, x: f64, y: f64, text: &str) {
    let text = escaped(text);
    add(out, format_args!("<text transform=\"translate({x:.1},{y:.1}) rotate(45)\">{text}</text>"));
}

/// A straight line.
pub fn line(out: &mut String, attributes: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    add(
        out,
        format_args!("<line {attributes} x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"),
    );
}

/// A rectangle with its upper left corner at a position.
pub fn rect(out: &mut String, attributes: &str, (x, y): (f64, f64), width: f64, height: f64) {
    let size = format_args!("width=\"{width:.1}\" height=\"{height:.1}\"").to_string();
    add(out, format_args!("<rect {attributes} x=\"{x:.1}\" y=\"{y:.1}\" {size}/>"));
}

/// A dot.
pub fn circle(out: &mut String, attributes: &str, (x, y): (f64, f64), radius: f64) {
    add(out, format_args!("<circle {attributes} cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"/>"));
}

/// Straight lines from point to point.
pub fn polyline(out: &mut String, attributes: &str, points: &[(f64, f64)]) {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    add(out, format_args!("<polyline {attributes} points=\"{}\"/>", path.join(" ")));
}

fn add(out: &mut String, element: Arguments) {
    let _ = writeln!(out, "{element}"); // writing to a String cannot fail
}
