//! Reads an account back from JSON. The keys of a step or a hold are at the same level as the others, and both have a key
//! `after`. serde's own flattening takes each key once, and so would read a hold as neither.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use super::{Account, HoldAccount, SelectionAccount, StepAccount};
use crate::audit::Snapshot;
use crate::clock::Phase;

/// What every account has.
#[derive(Deserialize)]
struct Common {
    n: usize,
    m: usize,
    selection: SelectionAccount,
    before: Snapshot,
    seconds: BTreeMap<Phase, f64>,
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Account, D::Error> {
        let value = Value::deserialize(from)?;
        let Common { n, m, selection, before, seconds } =
            Common::deserialize(&value).map_err(D::Error::custom)?;
        let has = |key: &str| value.get(key).is_some();
        let step = has("parameters").then(|| StepAccount::deserialize(&value)).transpose();
        let hold = has("proxy").then(|| HoldAccount::deserialize(&value)).transpose();
        let (step, hold) = (step.map_err(D::Error::custom)?, hold.map_err(D::Error::custom)?);
        Ok(Account { n, m, selection, before, step, hold, seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Performance;
    use crate::outcome::Epochs;
    use crate::select::Selection;
    use crate::soft_label::Summary;
    use crate::task::ProxyKind;

    #[test]
    fn the_account_of_a_hold_is_read_as_it_was_written() {
        let performance = Performance { loss: 0.1, accuracy: 1.0 / 3.0 };
        let before = Snapshot { forget: performance, retain: performance, validation: Some(performance) };
        let summary = Summary { accuracy: 0.25, loss: 1.0, confidence: 0.7 };
        let hold = HoldAccount {
            proxy: ProxyKind::Trained,
            epochs: Epochs { proxy: 4, hold: 3, cost: 9.6 },
            mini_batches: 8,
            nudge: 0.1,
            target: summary,
            reached: summary,
            after: Snapshot { validation: None, ..before },
        };
        let account = Account {
            n: 10,
            m: 2,
            selection: SelectionAccount::from(&Selection::default()),
            before,
            step: None,
            hold: Some(hold),
            seconds: BTreeMap::from([(Phase::Select, 0.2)]),
        };
        let text = serde_json::to_string(&account).unwrap();
        assert_eq!(serde_json::from_str::<Account>(&text).unwrap(), account);
        let none = Account { hold: None, ..account };
        let text = serde_json::to_string(&none).unwrap();
        assert_eq!(serde_json::from_str::<Account>(&text).unwrap(), none);
        assert!(serde_json::from_str::<Account>(&text.replace("\"n\":10", "\"n\":10,\"proxy\":1")).is_err());
    }
}
