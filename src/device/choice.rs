//! The device that a user asks for, in words: `auto`, `cpu`, `cuda`, or GPUs by their numbers, as `cuda:1` or `cuda:0,1,2,3`.

use std::fmt;
use std::str::FromStr;

/// See the file's opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// CUDA where it is usable, else the CPU; the reason is reported.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error that says why not.
    Cuda,
    /// These GPUs, which share the work, by the driver's numbers; or an error that says why not.
    Gpus(Vec<usize>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let wrong = |what: &str| {
            format!(
                "`{text}` {what}; auto, cpu, cuda, or GPUs by number, as cuda:1 or cuda:0,1, were expected"
            )
        };
        let numbers = match text {
            "auto" => return Ok(Choice::Auto),
            "cpu" => return Ok(Choice::Cpu),
            "cuda" => return Ok(Choice::Cuda),
            other => other.strip_prefix("cuda:").ok_or_else(|| wrong("is no device"))?,
        };
        let number = |number: &str| number.trim().parse().map_err(|_| wrong("has no list of numbers"));
        let numbers: Vec<usize> = numbers.split(',').map(number).collect::<Result<_, _>>()?;
        match numbers.iter().enumerate().find(|(i, number)| numbers[..*i].contains(number)) {
            Some((_, twice)) => Err(wrong(&format!("names GPU {twice} twice"))),
            None => Ok(Choice::Gpus(numbers)),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Choice::Auto => f.write_str("auto"),
            Choice::Cpu => f.write_str("cpu"),
            Choice::Cuda => f.write_str("cuda"),
            Choice::Gpus(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

impl<'de> serde::Deserialize<'de> for Choice {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Choice, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_printed_and_others_are_refused() {
        for (text, choice) in [
            ("auto", Choice::Auto),
            ("cpu", Choice::Cpu),
            ("cuda", Choice::Cuda),
            ("cuda:3", Choice::Gpus(vec![3])),
            ("cuda:2,0,1", Choice::Gpus(vec![2, 0, 1])),
        ] {
            assert_eq!((text.parse(), choice.to_string()), (Ok(choice), text.into()));
        }
        for (text, word) in [
            ("gpu", "is no device"),
            ("cuda:", "no list"),
            ("cuda:1,", "no list"),
            ("cuda:-1", "no list"),
            ("cuda:0,1,0", "GPU 0 twice"),
        ] {
            let error = text.parse::<Choice>().unwrap_err();
            assert!(error.contains(word) && error.contains("cuda:0,1"), "{error}");
        }
    }
}
