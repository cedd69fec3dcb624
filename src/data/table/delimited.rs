//! Files of cells: .csv and .tsv.

use std::path::Path;

use super::categories::Codes;
use super::columns::Table;
use super::layout::Layout;
use super::options::TableOptions;
use super::stored::Stored;
use crate::error::{Error, Result};

/// Lines of cells; a cell may stand in double quotes, and then have delimiters and line ends in it.
pub(super) fn read_delimited(
    path: &Path,
    bytes: &[u8],
    delimiter: Option<u8>,
    options: &TableOptions,
) -> Result<Table> {
    let layout = Layout::of(bytes, delimiter, options)
        .map_err(|unclear| Error::record(path, format!("line {}", unclear.line), unclear.reason));
    // A quote that is never closed makes one cell of many lines, so it is reported before what that looks like.
    let delimiter = layout.as_ref().map_or(delimiter.unwrap_or(b','), |layout| layout.delimiter);
    check_quotes(path, bytes, delimiter)?;
    let layout = layout?;
    let width = layout.width;
    let names = layout.names.clone();
    let mut table = Table::of(path, names.unwrap_or_else(|| (0..width).map(|j| j.to_string()).collect()));
    table.columns = vec![Stored::default(); width];
    let mut codes = Codes::of(&table, options)?;
    let mut comments = layout.comments;
    let mut reader = csv::ReaderBuilder::new();
    reader.has_headers(false).flexible(true).delimiter(layout.delimiter);
    for record in reader.from_reader(bytes).byte_records().skip(layout.skip) {
        let record = record.map_err(|e| Error::data(path, e.to_string()))?;
        let place = format!("line {}", record.position().map_or(0, csv::Position::line));
        let cells = record
            .iter()
            .map(|cell| std::str::from_utf8(cell).map(str::trim))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|_| Error::record(path, &*place, "is not UTF-8"))?;
        if cells == [""] && width > 1 {
            continue; // a line of blanks
        }
        if layout.is_comment(&cells, options) {
            comments += 1;
            continue;
        }
        if cells.len() != width {
            return Err(Error::record(path, place, other_width(&cells, width)));
        }
        for ((cell, column), codes) in cells.iter().zip(&mut table.columns).zip(&mut codes) {
            match codes {
                Some(codes) if !options.is_missing_category(cell) => {
                    column.values.extend(codes.code(cell));
                }
                Some(_) => column.push_unusable(true, &place, cell),
                None => column.push(cell, layout.decimal.number(cell), &place, options),
            }
        }
    }
    for (column, codes) in table.columns.iter_mut().zip(codes) {
        codes.into_iter().for_each(|codes| codes.finish(column, layout.decimal));
    }
    table.n = table.columns.first().map_or(0, |column| column.values.len());
    table.layout = Some(layout.text(comments));
    Ok(table)
}

/// What is wrong with a row of another number of cells.
fn other_width(cells: &[&str], width: usize) -> String {
    let remedy = match cells.iter().any(|cell| cell.contains([';', '\t', '|'])) || width == 1 {
        true => "; --delimiter names what separates cells",
        false => "",
    };
    format!("{} cells, where the first line has {width}{remedy}", cells.len())
}

/// Refuses a quoted cell that never ends, and one of several lines that goes on after its closing quote: both are a quote
/// that was meant as a character, and would hide the rows in between.
pub(in crate::data) fn check_quotes(path: &Path, bytes: &[u8], delimiter: u8) -> Result<()> {
    if !bytes.contains(&b'"') {
        return Ok(());
    }
    let refuse = |line: usize, what: &str| {
        let reason =
            format!("a quote `\"` opens here and {what}; as a character it is written \"\" in a quoted cell");
        Err(Error::record(path, format!("line {line}"), reason))
    };
    let (mut line, mut at, mut begins) = (1, 0, true);
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' && begins {
            let opened = line;
            loop {
                at += 1;
                match bytes.get(at..) {
                    None | Some([]) => return refuse(opened, "is never closed"),
                    Some([b'"', b'"', ..]) => at += 1,
                    Some([b'"', ..]) => break,
                    Some([byte, ..]) => line += usize::from(*byte == b'\n'),
                }
            }
            let next = bytes.get(at + 1);
            if line > opened && next.is_some_and(|byte| ![delimiter, b'\n', b'\r'].contains(byte)) {
                return refuse(opened, &format!("closes in line {line} within a cell"));
            }
        }
        line += usize::from(byte == b'\n');
        begins = [delimiter, b'\n', b'\r'].contains(&byte);
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::options::{Decimal, Delimiter, Header};
    use super::super::{Categorical, Column, Missing};
    use super::*;

    fn read_as(name: &str, bytes: impl AsRef<[u8]>, options: &TableOptions) -> Result<Table> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Table::read(&path, options)
    }

    fn read(bytes: impl AsRef<[u8]>) -> Table {
        read_as("t.csv", bytes, &TableOptions::default()).unwrap()
    }

    /// All columns `[p, n]`, rows with a missing value left out.
    fn values(table: &Table) -> Vec<f64> {
        let columns: Vec<Column> = (0..table.names().len()).map(Column::Number).collect();
        table.frame(&columns, Missing::Omit).unwrap().values
    }

    fn error(bytes: &str, words: &[&str]) {
        let error = read_as("t.csv", bytes, &TableOptions::default()).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{bytes}\n{error}");
    }

    /// A column's error where it is used.
    fn unusable(table: &Table, words: &[&str]) {
        let error = table.frame(&[Column::Number(0)], Missing::Raise).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }

    const CELLS: [f64; 4] = [1.5, -2.5, 3.5, 4.5];

    #[test]
    fn a_first_line_that_numbers_the_columns_is_a_header() {
        for text in [
            "0,1\n1.5,3.5\n-2.5,4.5\n",
            "2019,2020\n1.5,3.5\n-2.5,4.5\n",
            "x,1\n1.5,3.5\n-2.5,4.5\n",
            "0,1\n\n1.5,3.5\n-2.5,4.5",
        ] {
            let table = read(text);
            assert_eq!((table.n(), &values(&table)[..]), (2, &CELLS[..]), "{text}");
        }
        let indexed = read(",0,1\n0,7,8\n1,7,9\n2,5,4\n");
        assert_eq!((indexed.n(), indexed.names()), (3, &["".into(), "0".into(), "1".into()][..]));
        assert!(indexed.layout().unwrap().contains("--header no"));
    }

    #[test]
    fn a_first_line_of_numbers_is_a_row_where_it_cannot_be_a_header() {
        for (text, n) in [
            ("1,2\n3,4\n5,6\n", 3),
            ("5,1,3\n1,2,3\n", 2),
            ("0,1.5\n2,2.5\n", 2),
            ("0\n1\n2\n", 3),
            ("1,2\n", 1),
        ] {
            let table = read(text);
            assert_eq!((table.n(), table.names()[0].as_str()), (n, "0"), "{text}");
            assert!(table.layout().unwrap().starts_with("no header"), "{text}");
        }
        for text in ["0,1\n5,3\n2,2\n", "0,1\n1,0.5\n2,0.25\n", "0,1\n0.5,1\n0.25,2.5\n"] {
            error(text, &["line 1", "`0, 1`", "--header yes", "--header no"]);
            for (header, n) in [(Header::Yes, 2), (Header::No, 3)] {
                let options = TableOptions { header, ..TableOptions::default() };
                assert_eq!(read_as("t.csv", text, &options).unwrap().n(), n, "{text}");
            }
        }
    }

    #[test]
    fn a_first_row_with_words_is_a_row_where_the_words_come_again() {
        let iris = "5.1,3.5,setosa\n4.9,3.0,setosa\n6.1,2.9,other\n";
        assert_eq!((read(iris).n(), read("39,State,7\n50,Self,3\n38,State,2\n").n()), (3, 3));
        assert_eq!(read("p,x\ne,s\np,s\n").n(), 3);
        assert_eq!(read("1.5,one\n2.5,two\n").n(), 2);
        assert_eq!((read("town,2019\nrome,1.5\noslo,2.5\n").n(), read("a,b\nx,y\nz,w\n").n()), (2, 2));
        assert_eq!(read(format!("n,{iris}").replacen("n,5.1,3.5,setosa", "a,b,kind", 1)).n(), 2);
        error("town,2019\nrome,15\noslo,25\n", &["line 1", "--header"]);
        assert_eq!(read("NULL,1\n5,2\n2,7\n").n(), 3); // a missing value is no name
    }

    #[test]
    fn quotes_that_hide_rows_are_named_by_line() {
        error("x,note\n1,ok\n2,\"12 inch\n3,ok\n4,ok\n", &["line 3", "never closed"]);
        error("x;y;note\n1;2;ok\n2;3;\"12 inch\n3;4;ok\n", &["line 3", "never closed"]);
        error("x,note\n1,\"12 inch\n2,ok\n3,\"10 inch\n4,ok\n", &["line 2", "closes in line 4"]);
        error("x,note,y\n1,\"open,2\n3,ok,4\n", &["line 2", "never closed"]);
        assert_eq!(read("x,y\n1,2\n  \n3,4\n \t\n").n(), 2); // lines of blanks are no rows
        let several_lines = read("x,note\n1,\"two\nlines, \"\"quoted\"\"\"\n2,12 \" inch\n3,\"\"\n");
        assert_eq!(several_lines.n(), 3);
    }

    #[test]
    fn delimiters_and_decimal_marks_are_found() {
        for text in [
            "x;y\n1,5;3,5\n-2,5;4,5\n",
            "1,5;3,5\n-2,5;4,5\n",
            "x\ty\n1.5\t3.5\n-2.5\t4.5\n",
            "x|y\n1.5|3.5\n-2.5|4.5\n",
            "sep=;\nx;y\n1,5;3,5\n-2,5;4,5\n",
            "sep=;\r\n1,5;3,5\r\n-2,5;4,5\r\n",
            "\"x\",\"y\"\n\"1,5\",\"3,5\"\n\"-2,5\",\"4,5\"\n",
            "x;y\r1,5;3,5\r-2,5;4,5\r",
        ] {
            let table = read(text);
            assert_eq!((table.n(), &values(&table)[..]), (2, &CELLS[..]), "{text}");
        }
        assert!(read("x;y\n1,5;3\n2;4\n").layout().unwrap().contains("delimiter `;`, decimal comma"));
        // A list in a cell of a table with commas stays a cell.
        assert_eq!(read("x,list\n1.5,a;b;c\n2.5,d;e;f\n").names(), ["x", "list"]);
        let tsv = read_as("t.TSV", "x\ty\n1,5\t3,5\n-2,5\t4,5\n", &TableOptions::default()).unwrap();
        assert_eq!(values(&tsv), CELLS);
        let options = TableOptions {
            delimiter: Some(Delimiter(b':')),
            decimal: Some(Decimal::Comma),
            ..TableOptions::default()
        };
        assert_eq!(values(&read_as("t.csv", "1,5:3,5\n-2,5:4,5\n", &options).unwrap()), CELLS);
    }

    #[test]
    fn a_comma_before_three_digits_is_no_decimal_comma_by_itself() {
        let table = read("x;y\n1,234;1\n5,678;2\n");
        unusable(&table, &["line 2", "`1,234`", "--decimal ,", "1.234", "thousands"]);
        assert_eq!(values(&read("x;y\n1,234;1\n0,678;2\n")), [1.234, 0.678, 1.0, 2.0]);
        unusable(&read("x,y\n\"1,234\",1.5\n\"5,678\",2.5\n"), &["`1,234`"]);
        unusable(&read("x;y\n1.234,5;2\n2.345,6;3\n"), &["line 2", "`1.234,5`", "thousands"]);
        unusable(&read("x,y\n\"1,234.5\",2\n\"2,345.6\",3\n"), &["`1,234.5`", "thousands"]);
        error("x;y\n1;2\n3\n", &["line 3", "1 cells, where the first line has 2"]);
    }

    #[test]
    fn comments_are_left_out_and_rows_are_not() {
        let table =
            read("# made by a tool\n# in, two lines, more\nx,y\n1.5,3.5\n# a remark\n-2.5,4.5\n# end\n");
        assert_eq!(values(&table), CELLS);
        assert!(table.layout().unwrap().ends_with("comment lines 4"), "{:?}", table.layout());
        let savetxt = read("# x,y\n1.5,3.5\n-2.5,4.5\n");
        assert_eq!((savetxt.names(), &values(&savetxt)[..]), (&["x".into(), "y".into()][..], &CELLS[..]));
        assert_eq!(values(&read("# Berlin, 2020\nx,y\n1.5,3.5\n-2.5,4.5\n")), CELLS);
        assert_eq!(read("#N/A,1\n3,2\n4,7\n").n(), 3);
        let numbered = read("name,v\n#1,5\n#2,6\n#1,7\n");
        assert_eq!(numbered.n(), 3);
    }

    #[test]
    fn missing_values_are_known_by_the_usual_words_and_by_those_of_the_options() {
        for word in ["NULL", "None", "#N/A", "<NA>", "n/a", "\\N", "-1.#IND"] {
            let table = read(format!("x,y\n{word},1\n1.5,3.5\n-2.5,4.5\n"));
            assert_eq!(values(&table), CELLS, "{word}");
            unusable(&table, &["line 2", "column `x`", word, "--missing omit"]);
        }
        let text = "x,y\n-999,1\n1.5,3.5\ngone,2\n-2.5,4.5\n-999.0,8\n";
        unusable(&read(text), &["line 4", "`gone`", "--na gone"]);
        let options = TableOptions { na: vec!["-999".into(), "gone".into()], ..TableOptions::default() };
        assert_eq!(values(&read_as("t.csv", text, &options).unwrap()), CELLS);
        let categorical = vec![Categorical { column: "c".into(), onehot: false }];
        let options = TableOptions { categorical, ..TableOptions::default() };
        let table = read_as("t.csv", "y,c\n1,None\n2,brick\n3,NULL\n4,stone\n", &options).unwrap();
        assert_eq!(values(&table), [1.0, 2.0, 4.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn integers_beyond_2_to_the_53_are_exact() {
        let first = 1_700_000_000_000_000_000i64;
        let rows: String = (0..5).map(|i| format!("{},{}\n", first + 37 * i, i % 3)).collect();
        let table = read(format!("t,y\n{rows}"));
        assert_eq!(values(&table)[..5], [0.0, 37.0, 74.0, 111.0, 148.0]);
        let far = "id,y\n1,1\n18446744073709551614,2\n18446744073709551615,3\n";
        unusable(&read(far), &["column `id`", "18446744073709551614", "--categorical id"]);
        let categorical = vec![Categorical { column: "id".into(), onehot: false }];
        let options = TableOptions { categorical, ..TableOptions::default() };
        assert_eq!(values(&read_as("t.csv", far, &options).unwrap())[..3], [0.0, 1.0, 2.0]);
    }

    #[test]
    fn extensions_marks_and_packing_are_seen_through() {
        let text = b"x,y\n1.5,3.5\n-2.5,4.5\n";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text).unwrap();
        let packed = packed.finish().unwrap();
        let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(text.iter().flat_map(|&byte| [byte, 0])).collect();
        let marked = [b"\xef\xbb\xbf", &text[..]].concat();
        for (name, bytes) in [
            ("T.CSV", &text[..]),
            ("t.Csv.GZ", &packed),
            ("t.csv", &packed),
            ("t.csv", &wide),
            ("t.csv", &marked),
        ] {
            assert_eq!(values(&read_as(name, bytes, &TableOptions::default()).unwrap()), CELLS, "{name}");
        }
        let options = TableOptions { header: Header::No, ..TableOptions::default() };
        let error = read_as("t.arff", "@data\n", &options).unwrap_err().to_string();
        assert!(error.contains("--header is for .csv and .tsv files"), "{error}");
    }
}
