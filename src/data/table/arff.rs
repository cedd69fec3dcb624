//! Attribute-relation files: `@attribute NAME TYPE` lines, `@data`, one row a line.
//!
//! Cells are separated by commas, else tabs, else blanks. Names and cells may stand in single or double quotes, where a
//! backslash keeps the next character. A sparse row `{index value, ..}` lists what is not 0, or for a nominal attribute not
//! its first category. A category's number is its place in the declaration. `%` begins a comment line.

use std::path::Path;

use super::categories::Codes;
use super::columns::Table;
use super::options::{Decimal, TableOptions};
use super::stored::Stored;
use crate::error::{Error, Result};

/// An attribute: its name, and the categories of a nominal one.
struct Attribute {
    name: String,
    categories: Option<Vec<String>>,
}

/// Sparse rows may make this many cells, which take 128 MiB,
const MOST_SPARSE: usize = 1 << 24;
/// and more where there are at most this many for each byte of the file.
const SPARSE: usize = 300;

/// A cell, and whether it stood in quotes.
type Cell = (String, bool);

/// Something read, or what is wrong with it; the caller adds file and line.
type Parsed<T> = std::result::Result<T, String>;

/// Reads the table.
pub(super) fn read_arff(path: &Path, bytes: &[u8], options: &TableOptions) -> Result<Table> {
    let mut lines = bytes.split(|&byte| byte == b'\n').zip(1usize..).map(|(line, number)| {
        let place = format!("line {number}");
        match std::str::from_utf8(line) {
            Ok(line) => Ok((line.trim(), place)),
            Err(_) => Err(Error::record(path, place, "is not UTF-8")),
        }
    });
    let mut attributes = Vec::new();
    loop {
        let (line, place) = lines.next().ok_or_else(|| Error::data(path, "has no line `@data`"))??;
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word.to_ascii_lowercase().as_str() {
            "@attribute" => {
                attributes.push(attribute(rest.trim()).map_err(|reason| Error::record(path, place, reason))?);
            }
            "@data" => break,
            _ => {}
        }
    }
    let mut table = Table::of(path, attributes.iter().map(|attribute| attribute.name.clone()).collect());
    table.columns = vec![Stored::default(); attributes.len()];
    let mut codes = Codes::of(&table, options)?;
    for (codes, attribute) in codes.iter_mut().zip(&attributes) {
        if let (Some(codes), Some(categories)) = (codes, &attribute.categories) {
            codes.declare(categories);
        }
    }
    let (mut sparse, most) = (0, MOST_SPARSE.max(bytes.len().saturating_mul(SPARSE)));
    let ordered = codes.iter().flatten().any(Codes::is_declared);
    for line in lines {
        let (line, place) = line?;
        if line.is_empty() || line.starts_with('%') {
            continue;
        }
        let refuse = |reason: String| Error::record(path, &*place, reason);
        let cells = match line.strip_prefix('{') {
            Some(_) if sparse + attributes.len() > most => Err(format!(
                "with it, the table has more than {most} cells, nearly all of them zeros that no row lists; leave out columns or rows"
            )),
            Some(row) => {
                sparse += attributes.len();
                sparse_row(row, &attributes)
            }
            None => row(line, attributes.len()),
        };
        let cells = cells.map_err(refuse)?;
        if cells.len() != attributes.len() {
            let reason = format!("{} cells, where {} attributes are declared", cells.len(), attributes.len());
            return Err(refuse(reason));
        }
        for (((cell, attribute), column), codes) in
            cells.iter().zip(&attributes).zip(&mut table.columns).zip(&mut codes)
        {
            let codes = codes.as_mut();
            push(column, cell, attribute, codes, &place, options)
                .map_err(|reason| refuse(format!("column `{}`: {reason}", attribute.name)))?;
        }
    }
    for (column, codes) in table.columns.iter_mut().zip(codes) {
        codes.into_iter().for_each(|codes| codes.finish(column, Decimal::Point));
    }
    table.n = table.columns.first().map_or(0, |column| column.values.len());
    let order = if ordered { ", categories in the order that the file declares" } else { "" };
    table.layout = Some(format!("{} attributes{order}", attributes.len()));
    Ok(table)
}

/// Appends a cell to its column.
fn push(
    column: &mut Stored,
    (cell, _): &Cell,
    attribute: &Attribute,
    codes: Option<&mut Codes>,
    place: &str,
    options: &TableOptions,
) -> Parsed<()> {
    let declared = attribute.categories.as_ref().is_some_and(|categories| categories.contains(cell));
    let missing = !declared && options.is_missing_category(cell);
    match codes {
        Some(_) if missing => column.push_unusable(true, place, cell),
        Some(codes) => match codes.code(cell) {
            Some(code) => column.values.push(code),
            None => {
                let declared = attribute.categories.as_deref().unwrap_or_default().join(", ");
                return Err(format!("`{cell}` is not one of the declared categories {declared}"));
            }
        },
        None => column.push(cell, Decimal::Point.number(cell), place, options),
    }
    Ok(())
}

/// `NAME TYPE`, where a nominal type is a list of categories in braces.
fn attribute(text: &str) -> Parsed<Attribute> {
    let mut rest = text.char_indices().peekable();
    let quoted = text.starts_with(['\'', '"']);
    let (name, end) = match quoted {
        true => {
            let name = cell(&mut rest, &[])?.0;
            (name, rest.peek().map_or(text.len(), |&(at, _)| at))
        }
        false => {
            let end = text.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(text.len());
            (text[..end].to_string(), end)
        }
    };
    let kind = text[end..].trim();
    let categories = match kind.strip_prefix('{') {
        None => None,
        Some(list) => {
            let list =
                list.trim_end().strip_suffix('}').ok_or("the list of categories has no closing brace `}`")?;
            Some(split(list, &[','])?.into_iter().map(|(category, _)| category).collect())
        }
    };
    Ok(Attribute { name, categories })
}

/// The cells of a dense row: separated by commas, tabs or blanks, whichever gives as many cells as there are attributes.
fn row(line: &str, attributes: usize) -> Parsed<Vec<Cell>> {
    let blanks = || -> Parsed<Vec<Cell>> {
        let cells = split(line, &[' ', '\t'])?;
        Ok(cells.into_iter().filter(|(cell, quoted)| *quoted || !cell.is_empty()).collect())
    };
    let fits = |cells: &Parsed<Vec<Cell>>| cells.as_ref().is_ok_and(|cells| cells.len() == attributes);
    let commas = split(line, &[',']);
    if fits(&commas) {
        return commas;
    }
    [split(line, &['\t']), blanks()].into_iter().find(fits).unwrap_or(commas)
}

/// The cells of a sparse row, whose opening brace is read.
fn sparse_row(text: &str, attributes: &[Attribute]) -> Parsed<Vec<Cell>> {
    let list = text.trim_end().strip_suffix('}').ok_or("a sparse row has no closing brace `}`")?;
    let unlisted = |attribute: &Attribute| match attribute.categories.as_deref() {
        Some([first, ..]) => first.clone(),
        Some([]) | None => "0".to_string(),
    };
    let mut cells: Vec<Cell> = attributes.iter().map(|attribute| (unlisted(attribute), false)).collect();
    let mut listed = vec![false; cells.len()];
    let mut rest = list.char_indices().peekable();
    while rest.peek().is_some() {
        let index = cell(&mut rest, &[' ', '\t'])?.0;
        if index.is_empty() {
            if rest.next().is_some() {
                continue; // another blank
            }
            break;
        }
        let at: usize = index.parse().map_err(|_| format!("`{index}` is no number of an attribute"))?;
        let known = listed.get_mut(at).ok_or_else(|| {
            format!("has attribute {at}, where {} are declared (the first is 0)", attributes.len())
        })?;
        if std::mem::replace(known, true) {
            return Err(format!("has attribute {at} twice"));
        }
        cells[at] = cell(&mut rest, &[','])?;
        rest.next();
    }
    Ok(cells)
}

/// Cells between separators.
fn split(text: &str, separators: &[char]) -> Parsed<Vec<Cell>> {
    let mut rest = text.char_indices().peekable();
    let mut cells = vec![cell(&mut rest, separators)?];
    while rest.next().is_some() {
        cells.push(cell(&mut rest, separators)?);
    }
    Ok(cells)
}

type Rest<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

/// Reads a cell up to a separator, which is left; blanks around it are no part of it. Without separators it ends at its
/// closing quote.
fn cell(rest: &mut Rest, separators: &[char]) -> Parsed<Cell> {
    while rest.next_if(|&(_, c)| c.is_whitespace() && !separators.contains(&c)).is_some() {}
    let Some((_, quote)) = rest.next_if(|&(_, c)| c == '\'' || c == '"') else {
        let mut text = String::new();
        while let Some((_, c)) = rest.next_if(|(_, c)| !separators.contains(c)) {
            text.push(c);
        }
        return Ok((text.trim_end().to_string(), false));
    };
    let mut text = String::new();
    loop {
        match rest.next().map(|(_, c)| c) {
            None => return Err(format!("a quote {quote} is never closed")),
            Some('\\') => text.extend(rest.next().map(|(_, c)| c)),
            Some(c) if c == quote => break,
            Some(c) => text.push(c),
        }
    }
    if separators.is_empty() {
        return Ok((text, true));
    }
    while rest.next_if(|&(_, c)| c.is_whitespace() && !separators.contains(&c)).is_some() {}
    match rest.peek() {
        Some((_, c)) if !separators.contains(c) => Err(format!("`{c}` follows the quoted `{text}`")),
        _ => Ok((text, true)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Categorical, Column, Missing};
    use super::*;

    const HEAD: &str = "@RELATION d\n@attribute x numeric\n@attribute\t'the size'\t{small,'not, so \\'small\\'',\"large one\"}\n\
        @attribute y{0,1}\n% rows\n@data\n";

    fn read(rows: &str, categorical: &[&str]) -> Result<Vec<f64>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.arff");
        std::fs::write(&path, format!("{HEAD}{rows}")).unwrap();
        let named = |column: &&str| Categorical { column: column.to_string(), onehot: false };
        let categorical = categorical.iter().map(named).collect();
        let table = Table::read(&path, &TableOptions { categorical, ..TableOptions::default() })?;
        Ok(table.frame(&[0, 1, 2].map(Column::Number), Missing::Omit)?.values)
    }

    #[test]
    fn categories_have_the_order_of_their_declaration() {
        let expected = [1.5, 2.0, -3.0, 2.0, 0.0, 1.0, 0.0, 1.0, 1.0];
        for rows in [
            "1.5,'large one',0\n2,small,1\n-3, \"not, so 'small'\" ,1\n",
            "1.5\t\"large one\"\t0\r\n\r\n2\tsmall\t1\r\n% none\r\n-3\t'not, so \\'small\\''\t1\r\n",
            "1.5 'large one' 0\n2   small 1\n-3 'not, so \\'small\\'' 1",
            "{0 1.5, 1 \"large one\"}\n{ 0 2 ,2 1}\n{2 1, 1 'not, so \\'small\\'', 0 -3}\n?,small,1\n",
        ] {
            assert_eq!(read(rows, &["the size"]).unwrap(), expected, "{rows}");
        }
    }

    #[test]
    fn rows_that_do_not_fit_the_declaration_are_named() {
        for (rows, categorical, words) in [
            (
                "1,huge,0\n",
                &["the size"][..],
                &["line 7", "`the size`", "`huge`", "small, not, so 'small', large one"][..],
            ),
            ("1,small,0\n", &[], &["line 7", "column `the size`", "`small`", "--categorical"]),
            ("1,small\n", &[], &["line 7", "2 cells", "3 attributes"]),
            ("1,'small,0\n2,small,0\n", &[], &["line 7", "never closed"]),
            ("{3 1}\n", &[], &["line 7", "attribute 3", "3 are declared"]),
            ("{0 1, 0 2}\n", &[], &["attribute 0 twice"]),
            ("{x 1}\n", &[], &["`x`"]),
            ("{0 1\n", &[], &["closing brace"]),
        ] {
            let error = read(rows, categorical).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{rows}\n{error}");
        }
    }
}
