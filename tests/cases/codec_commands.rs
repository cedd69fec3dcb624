//! `scrubjay codec` and `scrubjay foci` through the binary: what they print, and what they say of bad input.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use scrubjay::data::tensors::{self, Tensor, Values};
use serde_json::{Value, json};

pub fn trials() -> Vec<Trial> {
    let parquet = match cfg!(feature = "parquet") {
        true => Trial::test("codec/command/parquet_agrees", parquet_agrees),
        false => Trial::test("codec/command/parquet_agrees (needs --features parquet)", || Ok(()))
            .with_ignored_flag(true),
    };
    let mut trials = vec![
        Trial::test("codec/command/answers", answers),
        Trial::test("codec/command/formats_agree", formats_agree),
        Trial::test("codec/command/foci_skips_the_target", foci_skips_the_target),
        Trial::test("codec/command/undefined_is_an_answer", undefined_is_an_answer),
        Trial::test("codec/command/a_seed_decides", a_seed_decides),
        Trial::test("codec/command/files_of_all_kinds_agree", files_of_all_kinds_agree),
        parquet,
        Trial::test("codec/command/missing_values_are_left_out_on_request", missing_values),
        Trial::test("codec/command/categories_are_columns_only_where_named", categories),
        Trial::test("codec/command/known_and_grouped_columns", known_and_grouped),
        Trial::test("codec/command/a_graph_is_drawn", a_graph_is_drawn),
        Trial::test("codec/command/steps_are_plotted", steps_are_plotted),
        Trial::test("codec/command/the_examples_of_the_manual_are_true", the_manual),
        Trial::test("codec/command/an_interrupt_ends_with_what_is_found", an_interrupt),
        Trial::test("codec/command/an_interrupted_graph_goes_on", an_interrupted_graph),
        Trial::test("codec/command/chance_is_told_on_request", chance_is_told_on_request),
        Trial::test("codec/command/tables_are_for_people", tables_are_for_people),
        Trial::test("codec/command/no_permission", no_permission),
        Trial::test("codec/command/tables_are_read_as_their_programs_wrote_them", as_written),
    ];
    trials.extend(what_is_no_file());
    trials.extend(refusals().into_iter().map(|(name, file, bytes, args, code, words)| {
        Trial::test(format!("codec/command/refuses_{name}"), move || {
            let dir = tempfile::tempdir()?;
            std::fs::write(dir.path().join(file), &bytes)?;
            refused(&run(dir.path(), file, args)?, code, words)
        })
    }));
    trials
}

const TABLE: &str = "age,school,income\n1,5,2\n2,3,4.5\n3,8,6\n4,1,8.1\n5,9,1e1\n6,2,12\n7,7,14\n8,4,16\n";

fn run(dir: &Path, file: &str, args: &str) -> Result<Output, Failed> {
    let mut args = args.split(' ');
    let command = args.next().ok_or("no command")?;
    let binary = env!("CARGO_BIN_EXE_scrubjay");
    Ok(Command::new(binary).current_dir(dir).arg(command).arg(file).args(args).output()?)
}

fn json_of(output: &Output) -> Result<Value, Failed> {
    if !output.status.success() {
        return Err(format!("{output:?}").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn refused(output: &Output, code: i32, words: &[&str]) -> Result<(), Failed> {
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() != Some(code) || !output.stdout.is_empty() {
        return Err(format!("expected exit {code} and nothing on stdout: {output:?}").into());
    }
    match words.iter().find(|word| !said.contains(**word)) {
        Some(word) => Err(format!("`{word}` is not in: {said}").into()),
        None => Ok(()),
    }
}

fn expect(found: &Value, expected: &Value) -> Result<(), Failed> {
    if found == expected { Ok(()) } else { Err(format!("{found}, expected {expected}").into()) }
}

fn answers() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    // income grows with age, whose neighbours tie: A = 1 + Σ_2..7 (R − 1/2) + 7 = 32, T = (8·32 − 204)/84
    let found = json_of(&run(dir.path(), "t.csv", "codec --y income --z age --json")?)?;
    expect(&found, &json!({"statistic": 52.0 / 84.0, "n": 8}))?;
    expect(&json_of(&run(dir.path(), "t.csv", "codec --y 2 --z 0 --json")?)?, &found)?;
    // the first of two is the lower one: A = 1 + Σ_2..8 (R − 1) = 29
    let first = json_of(&run(dir.path(), "t.csv", "codec --y income --z age --ties first --json")?)?;
    expect(&first, &json!({"statistic": (8.0 * 29.0 - 204.0) / 84.0, "n": 8}))?;
    let both = json_of(&run(dir.path(), "t.csv", "codec --y income --z age,school --json")?)?;
    expect(&json_of(&run(dir.path(), "t.csv", "codec --y income --z 0-1 --json")?)?, &both)?;
    let given = json_of(&run(dir.path(), "t.csv", "codec --y income --z school --x age --json")?)?;
    if given["statistic"].is_number() { Ok(()) } else { Err(given.to_string().into()) }
}

/// The columns of [`TABLE`] as .npy and .safetensors give what the .csv gives.
fn formats_agree() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let body = TABLE.split_once('\n').ok_or("no header")?.1;
    std::fs::write(dir.path().join("plain.csv"), body)?; // no header: all cells are numbers
    let values: Vec<f64> = body.split([',', '\n']).filter_map(|cell| cell.parse().ok()).collect();
    std::fs::write(dir.path().join("t.npy"), npy("<f8", "False", "(8, 3)", &bytes(&values)))?;
    let by_column: Vec<f64> = (0..24).map(|at| values[at % 8 * 3 + at / 8]).collect();
    std::fs::write(dir.path().join("f.npy"), npy("<f8", "True", "(8, 3)", &bytes(&by_column)))?;
    let x: Vec<f32> = values.chunks(3).flat_map(|row| [row[0] as f32, row[1] as f32]).collect();
    let y: Vec<f64> = values.chunks(3).map(|row| row[2]).collect();
    let tensors = [
        Tensor { name: "X", shape: vec![8, 2], values: Values::F32(&x) },
        Tensor { name: "Y", shape: vec![8], values: Values::F64(&y) },
    ];
    tensors::write(&dir.path().join("t.safetensors"), &tensors, Default::default())?;
    let expected = json_of(&run(dir.path(), "plain.csv", "codec --y 2 --z 1 --x 0 --json")?)?;
    for file in ["t.npy", "f.npy"] {
        expect(&json_of(&run(dir.path(), file, "codec --y 2 --z 1 --x 0 --json")?)?, &expected)?;
    }
    for args in ["codec --z 1 --x 0 --json", "codec --y Y --z 1 --x 0 --json"] {
        expect(&json_of(&run(dir.path(), "t.safetensors", args)?)?, &expected)?;
    }
    let expected = json_of(&run(dir.path(), "plain.csv", "foci --target 2 --all --json")?)?;
    expect(&json_of(&run(dir.path(), "t.safetensors", "foci --all --json")?)?, &expected)
}

/// The same table in the forms that other programs write gives the same answer, and how it was read is reported.
fn as_written() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text);
    let rows: Vec<(f64, f64)> =
        (0..30).map(|i| (f64::from(i * 7 % 30) + 0.25, f64::from(i % 5) - 1.5)).collect();
    let text = |header: &str, row: &dyn Fn(f64, f64) -> String| {
        format!("{header}{}", rows.iter().map(|&(x, y)| row(x, y)).collect::<String>())
    };
    let plain = |x: f64, y: f64| format!("{x},{y}\n");
    write("plain.csv", &text("x,y\n", &plain))?;
    write("numbers.csv", &text("0,1\n", &plain))?;
    write("comma.csv", &text("x;y\n", &|x, y| format!("{x};{y}\n").replace('.', ",")))?;
    write("null.csv", &text("x,y\nNULL,1\n", &plain))?;
    write(
        "big.csv",
        &text("x,y\n", &|x, y| format!("{},{y}\n", 1_700_000_000_000_000_000 + (4.0 * x) as i64)),
    )?;
    let expected = json_of(&run(dir.path(), "plain.csv", "codec --y 1 --z 0 --json")?)?;
    for (file, options, says) in [
        ("numbers.csv", "", "the first line numbers the columns"),
        ("comma.csv", "", "delimiter `;`, decimal comma"),
        ("big.csv", "", "header in the first line, delimiter `,`, decimal point"),
        ("null.csv", " --missing omit", "left out 1 of 31 rows"),
    ] {
        let found = run(dir.path(), file, &format!("codec --y 1 --z 0 --json{options}"))?;
        let mut answer = json_of(&found)?;
        answer.as_object_mut().ok_or("no object")?.remove("omitted");
        expect(&answer, &expected).map_err(|_| format!("{file}: {answer}, expected {expected}"))?;
        let said = String::from_utf8_lossy(&found.stderr);
        if !said.contains(says) {
            return Err(format!("`{says}` is not in: {said}").into());
        }
    }
    let raw = json_of(&run(dir.path(), "numbers.csv", "codec --y 1 --z 0 --json --header no")?)?;
    expect(&raw["n"], &json!(31))?;
    let args = "codec --y 1 --z 0 --json --delimiter ; --decimal , --header yes --na 99";
    expect(&json_of(&run(dir.path(), "comma.csv", args)?)?, &expected)?;
    refused(&run(dir.path(), "plain.csv", "codec --y 1 --z 0 --delimiter a")?, 2, &["--delimiter"])
}

fn foci_skips_the_target() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(
        dir.path().join("t.csv"),
        "y,noise,x\n1,5,1\n2,3,2\n3,8,3\n4,1,4\n5,9,5\n6,2,6\n7,7,7\n8,4,8\n",
    )?;
    let found = json_of(&run(dir.path(), "t.csv", "foci --target y --max-features 1 --json")?)?;
    let t = 52.0 / 84.0;
    expect(
        &found,
        &json!({"order": [2], "names": ["x"], "conditional": [t], "cumulative": [t], "stopped": "max-features"}),
    )?;
    let scaled = json_of(&run(dir.path(), "t.csv", "foci --target 0 --standardize scale --json")?)?;
    expect(&scaled["order"][0], &json!(2))
}

fn chance_is_told_on_request() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    let args = "codec --y income --z age --measure xi --permutations 99 --interval 0.9 --json";
    let found = json_of(&run(dir.path(), "t.csv", args)?)?;
    expect(&found["statistic"], &json!(1.0 - 56.0 / 168.0))?; // increasing: 1 − n (n − 1) / (2 · 84)
    expect(&found["permutations"], &json!(99))?;
    let p = found["p_value"].as_f64().ok_or("no p-value")?;
    let ends = (found["interval"][0].as_f64(), found["interval"][1].as_f64());
    let holds = p <= 0.05 && ends.0.is_some() && ends.0 <= ends.1 && found["m"] == 4;
    if !holds {
        return Err(found.to_string().into());
    }
    let random = "codec --y income --z age --ties random --draws 20 --standardize bounded --json";
    let random = json_of(&run(dir.path(), "t.csv", random)?)?;
    if random["statistic"].is_number() { Ok(()) } else { Err(random.to_string().into()) }
}

fn gz(bytes: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut packed, bytes)?;
    Ok(packed.finish()?)
}

/// A zip file of one directory; every second member is deflated.
fn zip(members: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, Failed> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (at, (name, content)) in members.iter().enumerate() {
        let packed = match at % 2 {
            0 => content.clone(),
            _ => {
                let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), Default::default());
                std::io::Write::write_all(&mut packed, content)?;
                packed.finish()?
            }
        };
        let method = if at % 2 == 0 { 0u16 } else { 8 };
        let mut sizes = vec![0; 4]; // checksum
        sizes.extend((packed.len() as u32).to_le_bytes());
        sizes.extend((content.len() as u32).to_le_bytes());
        sizes.extend((name.len() as u16).to_le_bytes());
        sizes.extend(0u16.to_le_bytes());
        let common = [&[20, 0, 0, 0][..], &method.to_le_bytes(), &[0; 4], &sizes].concat();
        let start = (file.len() as u32).to_le_bytes();
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
        directory.extend([b"PK\x01\x02", &[20, 0][..], &common, &[0; 10], &start, name.as_bytes()].concat());
    }
    let (count, start) = ((members.len() as u16).to_le_bytes(), (file.len() as u32).to_le_bytes());
    let len = (directory.len() as u32).to_le_bytes();
    file.extend(directory);
    file.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &len, &start, &[0; 2]].concat());
    Ok(file)
}

/// The table as .tsv, .csv.gz, .arff and .npz gives what the .csv gives; a damaged one is refused.
fn files_of_all_kinds_agree() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes);
    let (args, plain) = ("codec --y income --z school --x age --json", TABLE.as_bytes());
    write("t.csv", plain)?;
    let expected = json_of(&run(dir.path(), "t.csv", args)?)?;
    let tabs = TABLE.replace(',', "\t");
    write("t.tsv", tabs.as_bytes())?;
    write("t.csv.gz", &gz(plain)?)?;
    write("t.tsv.gz", &gz(tabs.as_bytes())?)?;
    let rows = TABLE.split_once('\n').ok_or("no header")?.1;
    let arff = "% people\n@RELATION p\n\n@attribute age numeric\n@ATTRIBUTE 'school' REAL\n\
        @attribute income real\n@data\n% rows\n";
    write("t.arff", format!("{arff}{rows}").as_bytes())?;
    let values: Vec<f64> = rows.split([',', '\n']).filter_map(|cell| cell.parse().ok()).collect();
    let column = |j: usize| bytes(&values.iter().copied().skip(j).step_by(3).collect::<Vec<_>>());
    let array = |j: usize| npy("<f8", "False", "(8,)", &column(j));
    let members = [("age.npy", array(0)), ("school.npy", array(1)), ("income.npy", array(2))];
    write("t.npz", &zip(&members)?)?;
    for file in ["t.tsv", "t.csv.gz", "t.tsv.gz", "t.arff", "t.npz"] {
        expect(&json_of(&run(dir.path(), file, args)?)?, &expected)?;
    }
    let x = [column(0), column(1)].concat();
    let x = npy("<f8", "True", "(8, 2)", &x);
    write("t.npz", &zip(&[("X.npy", x.clone()), ("Y.npy", array(2))])?)?;
    expect(&json_of(&run(dir.path(), "t.npz", "codec --z 1 --x 0 --json")?)?, &expected)?;
    write("one.npz", &zip(&[("any.npy", npy("<f8", "False", "(8, 3)", &bytes(&values)))])?)?;
    expect(&json_of(&run(dir.path(), "one.npz", "codec --y 2 --z 1 --x 0 --json")?)?, &expected)?;
    let short = npy("<f8", "False", "(2,)", &bytes(&[1.0, 2.0]));
    let whole = zip(&[("X.npy", x), ("Y.npy", short)])?;
    write("short.npz", &whole)?;
    refused(&run(dir.path(), "short.npz", "codec --z 1")?, 1, &["`Y`", "[8]"])?;
    for len in [0, 10, 40, whole.len() / 2, whole.len() - 30, whole.len() - 10] {
        write("cut.npz", &whole[..len])?;
        refused(&run(dir.path(), "cut.npz", "codec --z 1")?, 1, &["cut.npz"])?;
    }
    write("cut.csv.gz", &gz(plain)?[..30])?;
    refused(&run(dir.path(), "cut.csv.gz", args)?, 1, &["decompressed"])?;
    write("no.arff", arff.replace("@data", "").as_bytes())?;
    refused(&run(dir.path(), "no.arff", args)?, 1, &["@data"])
}

/// tests/data/people*.parquet were written by pyarrow, of TABLE and columns of other types; the small one with snappy and
/// row groups of 3, the other with zstd and without a dictionary:
///
/// ```python
/// t = pa.table({"age": pa.array([1, 2, 3, 4, 5, 6, 7, 8], pa.int64()),
///     "school": pa.array([5, 3, 8, 1, 9, 2, 7, 4], pa.uint8()),
///     "income": pa.array([2, 4.5, 6, 8.1, 10, 12, 14, 16], pa.float64()),
///     "old": pa.array([False] * 4 + [True] * 4), "half": pa.array([1.5] * 4 + [-2.0] * 4, pa.float16()),
///     "town": ["b", "a", "b", "c", "a", "c", "b", "a"], "gap": pa.array([1, None, 3, 4, 5, 6, 7, 8], pa.int32()),
///     "born": pa.array([7] * 8, pa.date32()), "list": [[1]] * 8})
/// pq.write_table(t, "people.parquet", row_group_size=3)
/// pq.write_table(t, "people-zstd.parquet", compression="zstd", use_dictionary=False)
/// ```
fn parquet_agrees() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    std::fs::write(
        dir.path().join("t.csv"),
        "age,school,income,old,half,town,gap\n1,5,2,0,1.5,b,1\n2,3,4.5,0,1.5,a,\n3,8,6,0,1.5,b,3\n\
         4,1,8.1,0,1.5,c,4\n5,9,1e1,1,-2,a,5\n6,2,12,1,-2,c,6\n7,7,14,1,-2,b,7\n8,4,16,1,-2,a,8\n",
    )?;
    for file in ["people.parquet", "people-zstd.parquet"] {
        std::fs::copy(data.join(file), dir.path().join(file))?;
        for args in [
            "codec --y income --z school --x age --json",
            "codec --y income --z old --x half --json",
            "codec --y income --z town --categorical town --json",
            "codec --y income --z gap --missing omit --json",
        ] {
            expect(&json_of(&run(dir.path(), file, args)?)?, &json_of(&run(dir.path(), "t.csv", args)?)?)?;
        }
        let refuses = |args: &str, words: &[&str]| refused(&run(dir.path(), file, args)?, 1, words);
        refuses("codec --y income --z gap", &["row 1", "column `gap`", "`null`"])?;
        refuses("codec --y income --z town", &["row 0", "column `town`", "`b`"])?;
        refuses("codec --y income --z born", &["row 0", "column `born`"])?;
        refuses("codec --y income --z list", &["row 0", "column `list`", "nested"])?;
        let whole = std::fs::read(data.join(file))?;
        for len in [0, 3, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(dir.path().join("cut.parquet"), &whole[..len])?;
            refused(&run(dir.path(), "cut.parquet", "codec --y 0 --z 1")?, 1, &["cut.parquet"])?;
        }
        let mut bad = whole;
        bad[30..60].fill(0xff); // in the first column's pages
        std::fs::write(dir.path().join("bad.parquet"), bad)?;
        refused(&run(dir.path(), "bad.parquet", "codec --y 0 --z 1")?, 1, &["bad.parquet", "column `age`"])?;
    }
    Ok(())
}

fn missing_values() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    let gaps = "age,school,income,other\n?,1,1,\n1,5,2,1\n2,3,4.5,\n3,8,6,1\n4,1,8.1,1\n5,9,1e1,1\n6,NA,1,1\n\
        6,2,12,1\n7,7,14,1\n8,4,16,1\n";
    std::fs::write(dir.path().join("gaps.csv"), gaps)?;
    let args = "codec --y income --z school --x age --json";
    let mut expected = json_of(&run(dir.path(), "t.csv", args)?)?;
    refused(&run(dir.path(), "gaps.csv", args)?, 1, &["line 2", "column `age`", "`?`"])?;
    expected["omitted"] = json!(2);
    expect(&json_of(&run(dir.path(), "gaps.csv", &format!("{args} --missing omit"))?)?, &expected)?;
    std::fs::write(dir.path().join("text.csv"), "a,b\n1,2\n,3\n2,no\n4,5\n")?;
    let text = run(dir.path(), "text.csv", "codec --y a --z b --missing omit")?;
    refused(&text, 1, &["line 4", "column `b`", "`no`"])
}

fn categories() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let text = "y,c,x\n1,low,5\n1.5,low,3\n3,mid,8\n3.5,mid,1\n9,top,9\n8,top,2\n2,low,7\n3.2,mid,4\n";
    let codes = text.replace("low", "0").replace("mid", "1").replace("top", "2");
    let columns = "y,a,b,c,x\n1,1,0,0,5\n1.5,1,0,0,3\n3,0,1,0,8\n3.5,0,1,0,1\n9,0,0,1,9\n8,0,0,1,2\n2,1,0,0,7\n\
        3.2,0,1,0,4\n";
    for (name, text) in [("t.csv", text), ("codes.csv", &codes), ("columns.csv", columns)] {
        std::fs::write(dir.path().join(name), text)?;
    }
    refused(&run(dir.path(), "t.csv", "codec --y y --z c")?, 1, &["line 2", "column `c`", "`low`"])?;
    let coded = json_of(&run(dir.path(), "codes.csv", "codec --y y --z c,x --json")?)?;
    let named = "codec --y y --z c,x --json --categorical c";
    expect(&json_of(&run(dir.path(), "t.csv", named)?)?, &coded)?;
    let wide = json_of(&run(dir.path(), "columns.csv", "codec --y y --z a,b,c,x --json")?)?;
    for file in ["t.csv", "codes.csv"] {
        expect(&json_of(&run(dir.path(), file, &format!("{named}:onehot"))?)?, &wide)?;
    }
    let chosen = "foci --target y --categorical c:onehot --max-features 1 --json";
    let chosen = json_of(&run(dir.path(), "t.csv", chosen)?)?;
    expect(&chosen["names"], &json!(["c"]))?;
    refused(&run(dir.path(), "t.csv", "foci --target c --categorical c:onehot")?, 2, &["one per category"])?;
    refused(&run(dir.path(), "t.csv", "codec --y y --z x --categorical d")?, 2, &["`d`"])
}

fn known_and_grouped() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    let found = "foci --target income --initial school --all --json";
    let found = json_of(&run(dir.path(), "t.csv", found)?)?;
    let t = json_of(&run(dir.path(), "t.csv", "codec --y income --z age --x school --json")?)?;
    expect(&found["order"], &json!([0]))?;
    expect(&found["conditional"][0], &t["statistic"])?;
    let found = "foci --target income --group age,school --all --json";
    let found = json_of(&run(dir.path(), "t.csv", found)?)?;
    let t = json_of(&run(dir.path(), "t.csv", "codec --y income --z age,school --json")?)?;
    expect(&found["order"], &json!([[0, 1]]))?;
    expect(&found["names"], &json!(["age+school"]))?;
    expect(&found["cumulative"][0], &t["statistic"])?;
    refused(&run(dir.path(), "t.csv", "foci --target income --initial income")?, 2, &["target itself"])
}

fn a_graph_is_drawn() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    let found = json_of(&run(dir.path(), "t.csv", "foci --graph --dot g.dot --json")?)?;
    expect(&found["names"], &json!(["age", "school", "income"]))?;
    for (j, name) in ["age", "school", "income"].iter().enumerate() {
        // each blanket is what FOCI finds for the column alone
        let alone = json_of(&run(dir.path(), "t.csv", &format!("foci --target {name} --json"))?)?;
        expect(&found["blankets"][j]["order"], &alone["order"])?;
        expect(&found["blankets"][j]["conditional"], &alone["conditional"])?;
    }
    expect(&found["edges"][0], &json!([0, 2, true]))?;
    let dot = std::fs::read_to_string(dir.path().join("g.dot"))?;
    if !dot.contains("\"age\" -- \"income\";") {
        return Err(dot.into());
    }
    refused(&run(dir.path(), "t.csv", "foci --graph --target age")?, 2, &["--graph"])?;

    // kept columns: a torn line is dropped, whole ones are believed, and the end is the same
    let resumed = "foci --graph --json --resume kept.jsonl";
    let kept = dir.path().join("kept.jsonl");
    expect(&json_of(&run(dir.path(), "t.csv", resumed)?)?, &found)?;
    let all = std::fs::read_to_string(&kept)?;
    let mut sorted: Vec<&str> = all.lines().collect();
    sorted.sort_unstable();
    for length in [0, 5, all.len() / 2, all.len() - 1] {
        std::fs::write(&kept, &all[..length])?;
        expect(&json_of(&run(dir.path(), "t.csv", resumed)?)?, &found)?;
        let again = std::fs::read_to_string(&kept)?;
        let mut again: Vec<&str> = again.lines().collect();
        again.sort_unstable();
        if again != sorted {
            return Err(format!("{again:?} is not {sorted:?}").into());
        }
    }
    let other = "foci --graph --max-features 1 --resume kept.jsonl";
    refused(&run(dir.path(), "t.csv", other)?, 2, &["kept.jsonl", "other values or options"])
}

fn steps_are_plotted() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE.replace("age", "a<b&c"))?;
    json_of(&run(dir.path(), "t.csv", "foci --target income --plot p.svg --json")?)?;
    let svg = std::fs::read_to_string(dir.path().join("p.svg"))?;
    let holds = svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("a&lt;b&amp;c");
    if holds && svg.contains("stopped: ") { Ok(()) } else { Err(svg.into()) }
}

/// Every `$ scrubjay ..` in docs/CODEC.md prints what stands below it.
fn the_manual() -> Result<(), Failed> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/CODEC.md"))?;
    let mut examples = 0;
    for example in text.split("    $ scrubjay ").skip(1) {
        let mut lines = example.lines();
        let args = lines.next().unwrap_or_default().split(' ');
        let output = Command::new(env!("CARGO_BIN_EXE_scrubjay")).current_dir(root).args(args).output()?;
        let expected: Vec<&str> = lines.map_while(|line| line.strip_prefix("    ")).collect();
        let found = String::from_utf8(output.stdout)?;
        if found.lines().collect::<Vec<_>>() != expected || expected.is_empty() {
            return Err(format!("{found} is not {expected:?}").into());
        }
        examples += 1;
    }
    if examples >= 3 { Ok(()) } else { Err("the examples are gone".into()) }
}

/// Steps of 200,000 rows take long enough to be interrupted.
#[cfg(unix)]
fn an_interrupt() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let values: Vec<f64> =
        (0..200_000 * 6u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64).collect();
    std::fs::write(dir.path().join("t.npy"), npy("<f8", "False", "(200000, 6)", &bytes(&values)))?;
    let mut running = Command::new(env!("CARGO_BIN_EXE_scrubjay"))
        .current_dir(dir.path())
        .args(["foci", "t.npy", "--target", "5", "--all", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It says what it will need just before it begins.
    let mut stderr = BufReader::new(running.stderr.take().ok_or("no stderr")?);
    let mut said = String::new();
    while !said.contains("at most") && stderr.read_line(&mut said)? > 0 {}
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-INT", &running.id().to_string()]).status()?;
    stderr.read_to_string(&mut said)?;
    let output = running.wait_with_output()?;
    if output.status.code() != Some(3) || !said.contains("what is found so far") || !said.contains("at most")
    {
        return Err(format!("{said}{output:?}").into());
    }
    let found: Value = serde_json::from_slice(&output.stdout)?;
    expect(&found["stopped"], &json!("interrupted"))
}

/// A graph is interrupted once a column of it is finished, and ends as it would have without that.
#[cfg(unix)]
fn an_interrupted_graph() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let n = 4000usize; // above the number of rows from which on blankets are found one after the other
    let values: Vec<f64> =
        (0..n as u64 * 12).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64).collect();
    let shape = format!("({n}, 12)");
    std::fs::write(dir.path().join("t.npy"), npy("<f8", "False", &shape, &bytes(&values)))?;
    let args = "foci --graph --all --max-features 4 --json";
    let expected = json_of(&run(dir.path(), "t.npy", args)?)?;
    let kept = dir.path().join("kept.jsonl");
    let finished = || std::fs::read_to_string(&kept).map_or(0, |text| text.lines().count().saturating_sub(1));
    let running = Command::new(env!("CARGO_BIN_EXE_scrubjay"))
        .current_dir(dir.path())
        .args(["foci", "t.npy", "--resume", "kept.jsonl"])
        .args(args.split(' ').skip(1))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    while finished() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill").args(["-INT", &running.id().to_string()]).status()?;
    let output = running.wait_with_output()?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    let blankets = found["blankets"].as_array().ok_or("no blankets")?;
    let lost = blankets.iter().filter(|blanket| blanket["stopped"] == "interrupted").count();
    let done = finished();
    if output.status.code() != Some(3) || lost == 0 || lost + done != blankets.len() {
        return Err(format!("{lost} of {} are lost, {done} are kept: {output:?}", blankets.len()).into());
    }
    let resumed = run(dir.path(), "t.npy", &format!("{args} --resume kept.jsonl"))?;
    let said = format!("{done} of {} columns are finished already", blankets.len());
    if !String::from_utf8_lossy(&resumed.stderr).contains(&said) {
        return Err(format!("`{said}` is not in: {resumed:?}").into());
    }
    expect(&json_of(&resumed)?, &expected)
}

#[cfg(not(unix))]
fn an_interrupt() -> Result<(), Failed> {
    Ok(())
}

#[cfg(not(unix))]
fn an_interrupted_graph() -> Result<(), Failed> {
    Ok(())
}

fn undefined_is_an_answer() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), "y,c,x\n1,7,0\n1,7,1\n1,7,2\n1,7,4\n")?;
    let found = json_of(&run(dir.path(), "t.csv", "codec --y y --z x --json")?)?;
    expect(&found, &json!({"statistic": null, "n": 4}))?;
    let found = json_of(&run(dir.path(), "t.csv", "foci --target y --json")?)?;
    let nothing: [u8; 0] = [];
    expect(
        &found,
        &json!({"order": nothing, "names": nothing, "conditional": nothing, "cumulative": nothing,
            "stopped": "undefined"}),
    )?;
    let all = json_of(&run(dir.path(), "t.csv", "foci --target y --all --json")?)?;
    expect(&all["conditional"], &json!([null, null]))?;
    let said = run(dir.path(), "t.csv", "codec --y y --z x")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    if said.contains("undefined: Y is constant") { Ok(()) } else { Err(said.into()) }
}

fn a_seed_decides() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    for what in ["--ties random", "--noise 5"] {
        let value = |seed: u32| {
            let args = format!("codec --y income --z age {what} --seed {seed} --json");
            run(dir.path(), "t.csv", &args).and_then(|output| json_of(&output))
        };
        expect(&value(1)?, &value(1)?)?;
        let first = value(0)?;
        if (1..20).map(value).collect::<Result<Vec<_>, _>>()?.iter().all(|other| *other == first) {
            return Err(format!("{what}: no seed changes {first}").into());
        }
    }
    Ok(())
}

fn tables_are_for_people() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("t.csv"), TABLE)?;
    let said = run(dir.path(), "t.csv", "foci --target income")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let lines: Vec<&str> = said.lines().collect();
    let holds = lines.len() >= 3
        && lines[0].contains("T given before")
        && lines[1].contains("age")
        && lines[1].contains("0.619048")
        && lines[0].len() == lines[1].len()
        && lines[lines.len() - 1].starts_with("stopped: ");
    if holds { Ok(()) } else { Err(said.into()) }
}

#[cfg(unix)]
fn no_permission() -> Result<(), Failed> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("t.csv");
    std::fs::write(&path, TABLE)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000))?;
    let output = run(dir.path(), "t.csv", "codec --y income --z age")?;
    match std::fs::read(&path) {
        Ok(_) => json_of(&run(dir.path(), "t.csv", "codec --y income --z age --json")?).map(drop), // root may read all
        Err(_) => refused(&output, 1, &["t.csv", "denied"]),
    }
}

#[cfg(not(unix))]
fn no_permission() -> Result<(), Failed> {
    Ok(())
}

fn bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn npy(dtype: &str, fortran: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), elements].concat()
}

/// A safetensors file of this header and these elements.
fn raw(header: &[u8], elements: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header, &vec![0; elements]].concat()
}

type Refusal = (&'static str, &'static str, Vec<u8>, &'static str, i32, &'static [&'static str]);

fn refusals() -> Vec<Refusal> {
    const CODEC: &str = "codec --y 0 --z 1";
    const FOCI: &str = "foci --target 0";
    let csv = |text: &str| text.as_bytes().to_vec();
    let square = |data_offsets: &str| {
        format!(r#"{{"X":{{"dtype":"F32","shape":[2,2],"data_offsets":{data_offsets}}}}}"#).into_bytes()
    };
    let overlap = br#"{"X":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"Y":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
    let strange = br#"{"X":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"Y":{"dtype":"F32","shape":[3],"data_offsets":[16,28]}}"#;
    let two = bytes(&[1.0, 2.0, 3.0, 4.0]);
    vec![
        ("text", "t.csv", csv("a,b\n1,2\n2,x\n3,4\n"), CODEC, 1, &["line 3", "column `b`", "`x`"]),
        ("nan", "t.csv", csv("a,b\n1,2\n2,NaN\n3,4\n"), FOCI, 1, &["line 3", "column `b`", "NaN"]),
        ("infinity", "t.csv", csv("1,2\n-inf,1\n3,4\n"), FOCI, 1, &["line 2", "column `0`", "-inf"]),
        ("an_empty_cell", "t.csv", csv("a,b\n1,\n2,3\n"), CODEC, 1, &["line 2", "column `b`"]),
        ("a_ragged_line", "t.csv", csv("a,b\n1,2\n2\n"), CODEC, 1, &["line 3", "1 cells", "2"]),
        ("other_than_utf8", "t.csv", b"a,b\n1,\xff\n".to_vec(), CODEC, 1, &["line 2", "UTF-8"]),
        ("an_empty_file", "t.csv", Vec::new(), CODEC, 1, &["t.csv", "no rows"]),
        ("a_header_alone", "t.csv", csv("a,b\n"), CODEC, 1, &["no rows"]),
        ("one_row", "t.csv", csv("a,b\n1,2\n"), CODEC, 2, &["at least 2 rows"]),
        ("an_unknown_name", "t.csv", csv(TABLE), "codec --y income --z agee", 2, &["agee", "age, school"]),
        ("an_unknown_number", "t.csv", csv(TABLE), "codec --y 0 --z 1-3", 2, &["1-3", "0 to 2"]),
        (
            "two_columns_of_a_name",
            "t.csv",
            csv("a,a\n1,2\n2,3\n"),
            "codec --y a --z 1",
            2,
            &["0 and 1", "`a`"],
        ),
        ("several_targets", "t.csv", csv(TABLE), "foci --target 0-1", 2, &["several"]),
        ("a_table_without_target", "t.csv", csv(TABLE), "foci --json", 2, &["--target"]),
        ("nothing_to_choose_from", "t.csv", csv("1\n2\n"), FOCI, 2, &["no column to choose"]),
        ("xi_given_x", "t.csv", csv(TABLE), "codec --y 0 --z 1 --x 2 --measure xi", 2, &["ξ"]),
        ("a_level_of_1", "t.csv", csv(TABLE), "codec --y 0 --z 1 --interval 1", 2, &["between 0 and 1"]),
        ("noise_below_zero", "t.csv", csv(TABLE), "codec --y 0 --z 1 --noise=-1", 2, &["noise"]),
        ("no_features", "t.csv", csv(TABLE), "foci --target 0 --max-features 0", 2, &["max-features"]),
        ("an_unknown_kind", "t.txt", csv(TABLE), CODEC, 1, &["t.txt", ".csv, .npy or .safetensors"]),
        ("another_magic", "t.npy", csv("PK"), CODEC, 1, &["t.npy", "npy"]),
        ("a_short_npy", "t.npy", npy("<f8", "False", "(2, 3)", &two), CODEC, 1, &["2 by 3", "32 bytes"]),
        ("a_long_npy", "t.npy", npy("<f8", "False", "(1, 3)", &two), CODEC, 1, &["1 by 3", "32 bytes"]),
        (
            "a_huge_npy",
            "t.npy",
            npy("<f8", "False", "(4611686018427387904, 8)", &two),
            CODEC,
            1,
            &["32 bytes"],
        ),
        (
            "a_cut_npy_header",
            "t.npy",
            npy("<f8", "False", "(2, 2)", &two)[..20].to_vec(),
            CODEC,
            1,
            &["cut off"],
        ),
        ("complex_npy", "t.npy", npy("<c8", "False", "(2, 2)", &two), CODEC, 1, &["<c8"]),
        ("npy_of_3_dimensions", "t.npy", npy("<f8", "False", "(2, 2, 1)", &two), CODEC, 1, &["3"]),
        ("npy_without_shape", "t.npy", npy("<f8", "False", "2", &two), CODEC, 1, &["shape"]),
        (
            "nan_in_npy",
            "t.npy",
            npy("<f8", "False", "(2, 2)", &bytes(&[1.0, 2.0, f64::NAN, 0.0])),
            FOCI,
            1,
            &["row 1", "column `0`"],
        ),
        ("truncated_safetensors", "t.safetensors", raw(&square("[0,16]"), 15), CODEC, 1, &["t.safetensors"]),
        ("overlong_safetensors", "t.safetensors", raw(&square("[0,16]"), 17), CODEC, 1, &["t.safetensors"]),
        ("overlapping_safetensors", "t.safetensors", raw(overlap, 16), CODEC, 1, &["t.safetensors"]),
        ("non_utf8_safetensors", "t.safetensors", raw(b"{\"\xff\":1}", 0), CODEC, 1, &["UTF-8"]),
        ("tensors_without_x", "t.safetensors", raw(b"{}", 0), CODEC, 1, &["`X`"]),
        ("a_y_of_another_length", "t.safetensors", raw(strange, 28), CODEC, 1, &["`Y`", "[2]", "[3]"]),
        ("tensors_without_y", "t.safetensors", raw(&square("[0,16]"), 16), "codec --z 1", 2, &["--y", "`Y`"]),
    ]
}

/// A directory, and a file that is not there.
fn what_is_no_file() -> Vec<Trial> {
    let trial = |name: &str, file: &'static str, words: &'static [&'static str]| {
        Trial::test(format!("codec/command/refuses_{name}"), move || {
            let dir = tempfile::tempdir()?;
            std::fs::create_dir(dir.path().join("d.csv"))?;
            refused(&run(dir.path(), file, "codec --y 0 --z 1")?, 1, words)
        })
    };
    vec![trial("a_directory", "d.csv", &["d.csv", "directory"]), trial("a_missing_file", "m.csv", &["m.csv"])]
}
