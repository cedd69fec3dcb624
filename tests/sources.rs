//! The sources as `layering` sees them: which file uses which.
//!
//! Reads the `use` items and the paths of every source file, test code left out, and resolves each to the file that
//! defines the item. A file that re-exports its own submodules' items does not use them, but where it names them itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Sign(char),
}

/// The tokens of a source; comments, literals and lifetimes left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or(' ');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut found, mut i) = (Vec::new(), 0);
    while i < chars.len() {
        match chars[i] {
            '/' if at(i + 1) == '/' => {
                i = (i..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len())
            }
            '/' if at(i + 1) == '*' => i = end_of(&chars, i + 2, "*/"),
            '"' => i = end_of_string(&chars, i + 1),
            'r' | 'b' if literal(&chars, i).is_some() => i = literal(&chars, i).unwrap(),
            '\'' if at(i + 1) == '\\' => i = end_of(&chars, i + 3, "'"),
            '\'' if at(i + 2) == '\'' => i += 3,
            '\'' => i = (i + 1..chars.len()).find(|&i| !is_word(chars[i])).unwrap_or(chars.len()),
            ':' if at(i + 1) == ':' => {
                found.push(Token::Path);
                i += 2;
            }
            c if is_word(c) => {
                let end = (i..chars.len()).find(|&i| !is_word(chars[i])).unwrap_or(chars.len());
                found.push(Token::Word(chars[i..end].iter().collect()));
                i = end;
            }
            c => {
                found.extend((!c.is_whitespace()).then_some(Token::Sign(c)));
                i += 1;
            }
        }
    }
    found
}

/// Where a raw or a byte string that begins here ends.
fn literal(chars: &[char], start: usize) -> Option<usize> {
    if start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_') {
        return None;
    }
    let begin = start + usize::from(chars[start] == 'b');
    let raw = chars.get(begin) == Some(&'r');
    let hashes = chars[begin + usize::from(raw)..].iter().take_while(|&&c| c == '#').count();
    let quote = begin + usize::from(raw) + hashes;
    match (chars.get(quote) == Some(&'"') && (raw || hashes == 0), raw) {
        (true, true) => Some(end_of(chars, quote + 1, &format!("\"{}", "#".repeat(hashes)))),
        (true, false) => Some(end_of_string(chars, quote + 1)),
        (false, _) => None,
    }
}

fn end_of(chars: &[char], start: usize, mark: &str) -> usize {
    let mark: Vec<char> = mark.chars().collect();
    (start..chars.len()).find(|&i| chars[i..].starts_with(&mark)).map_or(chars.len(), |i| i + mark.len())
}

fn end_of_string(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += 1 + usize::from(chars[i] == '\\');
    }
    i + 1
}

/// The place after the bracket that closes the one at `open`.
fn closed(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            Token::Sign(_) | Token::Word(_) | Token::Path => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

/// The tokens without the items that only tests have.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut kept, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if tokens[i..].starts_with(&[Token::Sign('#'), Token::Sign('[')]) {
            let end = closed(tokens, i + 1);
            let attribute = &tokens[i + 2..end];
            let has = |word: &str| attribute.contains(&Token::Word(word.into()));
            if attribute[0] == Token::Word("cfg".into()) && has("test") && !has("not") {
                i = end_of_item(tokens, end);
                continue;
            }
        }
        kept.push(tokens[i].clone());
        i += 1;
    }
    kept
}

/// The place after an item, which may begin with attributes.
fn end_of_item(tokens: &[Token], mut i: usize) -> usize {
    let mut braces = true; // whether they end the item
    while i < tokens.len() {
        match &tokens[i] {
            Token::Sign(';') => return i + 1,
            Token::Sign('{') if braces => return closed(tokens, i),
            Token::Sign('(' | '[' | '{') => i = closed(tokens, i),
            Token::Word(word) => {
                braces &= !["use", "const", "static", "type"].contains(&word.as_str());
                i += 1;
            }
            Token::Sign(_) | Token::Path => i += 1,
        }
    }
    i
}

type Names = Vec<String>;

/// A path in a source.
#[derive(Debug, PartialEq)]
struct Mention {
    /// The module in which it stands.
    module: Names,
    path: Names,
    /// Of a `use` item: the name that it gives.
    name: Option<String>,
    /// Whether it is a `pub use` item whose name the module itself does not use.
    handed_on: bool,
}

/// All paths of the file of a module, and the modules that are written in it.
fn mentions(tokens: &[Token], module: &[String]) -> (Vec<Mention>, Vec<Names>) {
    let (mut found, mut modules) = (Vec::new(), vec![module.to_vec()]);
    let mut open: Vec<(Names, usize)> = vec![(module.to_vec(), tokens.len())];
    let mut i = 0;
    while i < tokens.len() {
        while open.last().is_some_and(|inner| inner.1 <= i) {
            open.pop();
        }
        let inside = open.last().map_or_else(|| module.to_vec(), |inner| inner.0.clone());
        match &tokens[i..] {
            [Token::Word(word), Token::Word(name), Token::Sign('{'), ..] if word == "mod" => {
                let inner = [&inside[..], std::slice::from_ref(name)].concat();
                modules.push(inner.clone());
                open.push((inner, closed(tokens, i + 2)));
                i += 3;
            }
            [Token::Word(word), ..] if word == "use" => {
                let end = (i..tokens.len()).find(|&i| tokens[i] == Token::Sign(';')).unwrap();
                let before = tokens[..i].last();
                let public = before == Some(&Token::Word("pub".into())) || before == Some(&Token::Sign(')'));
                let mut paths = Vec::new();
                tree(&tokens[i + 1..end], &[], &mut paths);
                let mention = |(path, name): (Names, String)| {
                    let handed_on = public && !is_used(tokens, &name);
                    Mention { module: inside.clone(), path, name: Some(name), handed_on }
                };
                found.extend(paths.into_iter().map(mention));
                i = end;
            }
            [Token::Word(_), Token::Path, ..] => {
                let mut path = Vec::new();
                while let [Token::Word(word), Token::Path, ..] = &tokens[i..] {
                    path.push(word.clone());
                    i += 2;
                }
                if let Token::Word(word) = &tokens[i] {
                    path.push(word.clone());
                    i += 1;
                }
                found.push(Mention { module: inside, path, name: None, handed_on: false });
            }
            _ => i += 1,
        }
    }
    (found, modules)
}

/// Whether a name stands outside `use` items, by itself: as a type, or called.
fn is_used(tokens: &[Token], name: &str) -> bool {
    let mut importing = false;
    (0..tokens.len()).any(|i| {
        match &tokens[i] {
            Token::Word(word) if word == "use" => importing = true,
            Token::Sign(';') => importing = false,
            Token::Word(_) | Token::Sign(_) | Token::Path => {}
        }
        let before = i.checked_sub(1).map(|before| &tokens[before]);
        let alone = !matches!(before, Some(Token::Path | Token::Sign('.')))
            && before != Some(&Token::Word("fn".into()));
        let meant = name.starts_with(char::is_uppercase) || tokens.get(i + 1) == Some(&Token::Sign('('));
        !importing && alone && meant && tokens[i] == Token::Word(name.into())
    })
}

/// The paths of a `use` tree, each with the name that it gives.
fn tree(tokens: &[Token], before: &[String], found: &mut Vec<(Names, String)>) {
    let mut path = before.to_vec();
    let mut i = 0;
    while i < tokens.len() {
        match &tokens[i] {
            Token::Word(word) if word == "as" => {
                if let Some(Token::Word(name)) = tokens.get(i + 1) {
                    return found.push((path, name.clone()));
                }
                return; // `as _`
            }
            Token::Word(word) if word == "self" && !path.is_empty() => {}
            Token::Word(word) => path.push(word.clone()),
            Token::Sign('{') => {
                let inner = &tokens[i + 1..closed(tokens, i) - 1];
                let (mut start, mut at) = (0, 0);
                while at <= inner.len() {
                    match inner.get(at) {
                        Some(Token::Sign('{')) => at = closed(inner, at),
                        Some(Token::Sign(',')) | None => {
                            if start < at {
                                tree(&inner[start..at], &path, found);
                            }
                            at += 1;
                            start = at;
                        }
                        Some(_) => at += 1,
                    }
                }
                return;
            }
            Token::Sign('*') => path.push("*".into()),
            Token::Sign(_) | Token::Path => {}
        }
        i += 1;
    }
    let name = path.last().cloned().unwrap_or_default();
    found.push((path, name));
}

/// What the sources say: which file holds which module, and which name stands for what.
#[derive(Default)]
pub struct Sources {
    files: BTreeMap<Names, String>,
    names: BTreeMap<(Names, String), Names>,
    mentions: Vec<(String, Mention)>,
}

/// By the file that uses and the file that is used: the items.
pub type Arrows = BTreeMap<(String, String), BTreeSet<String>>;

/// What a path leads to: the file, and the item's name in it, if any.
type Target = (String, Option<String>);

impl Sources {
    /// Of files by their paths below src/.
    pub fn new(texts: &[(String, String)]) -> Sources {
        let mut sources = Sources::default();
        let parsed: Vec<_> = texts
            .iter()
            .map(|(file, text)| (file, mentions(&without_tests(&tokens(text)), &module_of(file))))
            .collect();
        for (file, (_, modules)) in &parsed {
            sources.files.extend(modules.iter().map(|module| (module.clone(), (*file).clone())));
        }
        for (file, (mentions, _)) in parsed {
            sources.mentions.extend(mentions.into_iter().map(|mention| (file.clone(), mention)));
        }
        for (_, Mention { module, path, name, .. }) in &sources.mentions {
            if let (Some(name), Some(path)) = (name, sources.absolute(module, path)) {
                sources.names.insert((module.clone(), name.clone()), path);
            }
        }
        sources
    }

    /// A path from the crate's root; none where it leaves the crate, or begins with a local name.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Names> {
        let (first, rest) = path.split_first()?;
        let mut from = match first.as_str() {
            "crate" | "scrubjay" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len() - 1].to_vec(),
            _ => {
                let child = [module, std::slice::from_ref(first)].concat();
                match self.names.get(&(module.to_vec(), first.clone())) {
                    _ if self.files.contains_key(&child) => child,
                    Some(named) => named.clone(),
                    None => return None,
                }
            }
        };
        for name in rest {
            match name.as_str() {
                "super" => drop(from.pop()),
                name => from.push(name.to_string()),
            }
        }
        Some(from)
    }

    /// The file and the item that an absolute path leads to, through the names that modules give to others' items.
    fn target(&self, path: &[String]) -> Option<Target> {
        let mut path = path.to_vec();
        for _ in 0..10 {
            let inside = (0..=path.len()).rev().find(|&len| self.files.contains_key(&path[..len]))?;
            let Some(item) = path.get(inside) else {
                return Some((self.files[&path].clone(), None));
            };
            match self.names.get(&(path[..inside].to_vec(), item.clone())) {
                Some(named) if named[..] != path[..=inside] => {
                    path = [&named[..], &path[inside + 1..]].concat();
                }
                Some(_) | None => return Some((self.files[&path[..inside]].clone(), Some(item.clone()))),
            }
        }
        panic!("{path:?} stands for itself");
    }

    /// The files of the library that take an item from the crate's root, which hands it on, and the item.
    pub fn through_the_root(&self) -> Vec<(&str, String)> {
        let inside =
            |file: &str| !["lib", "main", "cli"].contains(&module_of(file).first().map_or("lib", |m| m));
        let handed_on = |(file, mention): &(String, Mention)| {
            let path = self.absolute(&mention.module, &mention.path)?;
            let first = path.first().filter(|_| inside(file))?;
            let name = (Names::new(), first.clone());
            let module = self.files.contains_key(&path[..1]);
            (!module && self.names.contains_key(&name)).then(|| path.join("::"))
        };
        let all = self.mentions.iter();
        all.filter_map(|mention| Some((mention.0.as_str(), handed_on(mention)?))).collect()
    }

    /// Which file uses which, by which item; a `pub use` that hands on what lies in a module's own submodules is none.
    pub fn arrows(&self) -> Arrows {
        let mut arrows = Arrows::new();
        for (file, mention) in &self.mentions {
            let Some(path) = self.absolute(&mention.module, &mention.path) else { continue };
            if mention.handed_on && path.starts_with(&mention.module) {
                continue;
            }
            let Some((to, item)) = self.target(&path) else {
                panic!("{file}: {} leads nowhere", mention.path.join("::"));
            };
            if to == "lib.rs" && item.is_some() && item.as_deref() != Some("*") {
                panic!("{file}: {} is not in the crate", mention.path.join("::"));
            }
            if *file != to {
                arrows.entry((file.clone(), to)).or_default().extend(item);
            }
        }
        arrows
    }
}

/// The module that a file below src/ holds.
fn module_of(file: &str) -> Names {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_string).collect() }
}

fn read(dir: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            read(&path, &format!("{name}/"), found);
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The files below src/ with their texts, and what they say.
pub fn sources() -> (Vec<(String, String)>, Sources) {
    let mut texts = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut texts);
    let sources = Sources::new(&texts);
    (texts, sources)
}
