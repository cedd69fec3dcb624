//! The names of options: one definition each, for the command line, reports, records and errors.
//!
//! [`names`] gives an enum without fields its `name()` (an exhaustive match, so that a new variant without a name does
//! not compile), reads and writes it in JSON by that name, and, with the feature `cli`, as a value of an option.

/// See the file's opening. `names!(Type { Variant = "name": "what it means, for --help-all", .. })`; the meaning may be left out.
macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal $(: $help:literal)?),+ $(,)? }) => {
        impl $type {
            /// Its name in options and reports.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<$type, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                match text.as_ref() {
                    $($name => Ok($type::$variant),)+
                    other => Err(serde::de::Error::unknown_variant(other, &[$($name),+])),
                }
            }
        }

        #[cfg(feature = "cli")]
        impl clap::ValueEnum for $type {
            fn value_variants<'a>() -> &'a [$type] {
                &[$($type::$variant),+]
            }

            fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
                let value = clap::builder::PossibleValue::new(self.name());
                Some(match self {
                    $($type::$variant => value$(.help($help))?,)+
                })
            }
        }
    };
}

pub(crate) use names;

/// Reads a number that JSON has no form for, and so wrote as null, as NaN: it is written as null again.
pub fn number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value: Option<f64> = serde::Deserialize::deserialize(from)?;
    Ok(value.unwrap_or(f64::NAN))
}

/// [`number`], of a list.
pub fn numbers<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let values: Vec<Option<f64>> = serde::Deserialize::deserialize(from)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}
