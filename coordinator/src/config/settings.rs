//! Every key with a checked value and its origin: one pass from layers to values, collecting every mistake.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use config::{Value, ValueKind};

use super::keys::{self, KEYS, Kind};
use super::mistake::{Mistake, Mistakes};

/// A value that has passed the check of its kind, and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// `None`: not set.
    pub value: Option<toml::Value>,
    /// `default`, a file's name, a variable, a flag, or `this machine`.
    pub origin: String,
}

/// All keys, checked one by one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// The defaults.
    pub(super) fn defaults() -> Self {
        let unset = || Setting {
            value: None,
            origin: super::DEFAULT.into(),
        };
        let mut all = Self(KEYS.iter().map(|key| (key.name, unset())).collect());
        let mistakes = all.apply(super::layers::defaults());
        debug_assert_eq!(
            mistakes,
            [],
            "the table of keys holds a default of the wrong kind"
        );
        all
    }

    /// Puts `said` over what is there; what is wrong stays as it was and is reported.
    pub(super) fn apply(&mut self, said: BTreeMap<String, Value>) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for (name, value) in said {
            let origin = value.origin().unwrap_or("a nested value").to_owned();
            let Some(key) = keys::find(&name) else {
                mistakes.push(unknown(name, &value, origin));
                continue;
            };
            let unset = matches!(&value.kind, ValueKind::String(text) if text.is_empty())
                && key.default.is_empty();
            let checked = if unset {
                Ok(None)
            } else {
                check(&key.kind, &value.kind).map(Some)
            };
            match checked {
                Ok(value) => {
                    self.0.insert(key.name, Setting { value, origin });
                }
                Err(problem) => {
                    mistakes.push(Mistake {
                        key: name,
                        value: Some(show(&value.kind)),
                        origin,
                        problem,
                    });
                }
            }
        }
        mistakes
    }

    /// The setting of a key of the table.
    pub(super) fn get(&self, key: &str) -> &Setting {
        self.0
            .get(key)
            .expect("every key of the table has a setting")
    }

    /// Replaces a value by what was found out about it.
    pub(super) fn put(&mut self, key: &'static str, value: toml::Value, origin: &str) {
        self.0.insert(
            key,
            Setting {
                value: Some(value),
                origin: origin.into(),
            },
        );
    }

    /// A mistake that concerns the value of `key` together with others.
    pub(super) fn mistake(&self, key: &str, problem: String) -> Mistake {
        let setting = self.get(key);
        let value = setting.value.as_ref().map(ToString::to_string);
        Mistake {
            key: key.into(),
            value,
            origin: setting.origin.clone(),
            problem,
        }
    }

    /// Text of a key that is always set.
    pub(super) fn text(&self, key: &str) -> String {
        self.get(key)
            .value
            .as_ref()
            .and_then(toml::Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }

    pub(super) fn optional_path(&self, key: &str) -> Option<std::path::PathBuf> {
        self.get(key)
            .value
            .as_ref()
            .and_then(toml::Value::as_str)
            .map(Into::into)
    }

    pub(super) fn optional_number(&self, key: &str) -> Option<f64> {
        self.get(key).value.as_ref().and_then(as_number)
    }

    pub(super) fn number(&self, key: &str) -> f64 {
        self.optional_number(key).unwrap_or_default()
    }

    pub(super) fn numbers(&self, key: &str) -> Vec<f64> {
        let list = self.get(key).value.as_ref().and_then(toml::Value::as_array);
        list.into_iter().flatten().filter_map(as_number).collect()
    }

    pub(super) fn triple(&self, key: &str) -> [f64; 3] {
        self.numbers(key)
            .try_into()
            .expect("the check of a triple lets only three numbers pass")
    }

    /// A whole number as the type its section wants; the table's range fits that type.
    pub(super) fn optional_whole<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        self.get(key)
            .value
            .as_ref()
            .and_then(toml::Value::as_integer)
            .and_then(|number| T::try_from(number).ok())
    }

    pub(super) fn whole<T: TryFrom<i64>>(&self, key: &str) -> T {
        self.optional_whole(key)
            .expect("a whole number with a default, in the range of its type")
    }

    pub(super) fn switch(&self, key: &str) -> bool {
        self.get(key)
            .value
            .as_ref()
            .and_then(toml::Value::as_bool)
            .unwrap_or_default()
    }

    /// (name, class names) of each group.
    pub(super) fn groups(&self, key: &str) -> Option<Vec<(String, Vec<String>)>> {
        let list = self.get(key).value.as_ref()?.as_array()?;
        let text = |value: &toml::Value| value.as_str().map(str::to_owned);
        let group = |group: &toml::Value| {
            let classes = group
                .get("classes")?
                .as_array()?
                .iter()
                .filter_map(text)
                .collect();
            Some((text(group.get("name")?)?, classes))
        };
        Some(list.iter().filter_map(group).collect())
    }
}

fn as_number(value: &toml::Value) -> Option<f64> {
    value
        .as_float()
        .or_else(|| value.as_integer().map(|whole| whole as f64))
}

fn unknown(name: String, value: &Value, origin: String) -> Mistake {
    let section = name.split('.').next().unwrap_or_default();
    let hint = match keys::nearest(&name) {
        Some(known) => format!("did you mean {known}?"),
        None if keys::SECTIONS.iter().any(|(known, _)| *known == section) => {
            format!("`coordinator config keys` lists those of section {section}")
        }
        None => {
            let sections: Vec<_> = keys::SECTIONS.iter().map(|(name, _)| *name).collect();
            format!(
                "the sections are {}; `coordinator config keys` lists all keys",
                sections.join(", ")
            )
        }
    };
    Mistake {
        key: name,
        value: Some(show(&value.kind)),
        origin,
        problem: format!("there is no such key: {hint}"),
    }
}

/// The value as TOML if it is of this kind, else what is expected.
fn check(kind: &Kind, value: &ValueKind) -> Result<toml::Value, String> {
    let expected = || format!("expected {}", kind.describe());
    match kind {
        Kind::Choice(words) => {
            let ValueKind::String(text) = value else {
                return Err(expected());
            };
            words
                .contains(&text.as_str())
                .then(|| text.clone().into())
                .ok_or_else(expected)
        }
        Kind::Path => match value {
            ValueKind::String(text) if !text.is_empty() => {
                let path = std::path::absolute(text)
                    .map_err(|error| format!("is not a usable path: {error}"))?;
                let text = path
                    .into_os_string()
                    .into_string()
                    .map_err(|_| "is not valid UTF-8".to_owned())?;
                Ok(text.into())
            }
            _ => Err(expected()),
        },
        Kind::Whole(min, max) => {
            let whole = as_whole(value).ok_or_else(expected)?;
            let in_range = u64::try_from(whole).is_ok_and(|whole| (*min..=*max).contains(&whole));
            in_range.then(|| whole.into()).ok_or_else(expected)
        }
        Kind::Number(min, max) => number(value, *min, *max)
            .map(Into::into)
            .ok_or_else(expected),
        Kind::Switch => match value {
            ValueKind::Boolean(switch) => Ok((*switch).into()),
            _ => Err(expected()),
        },
        Kind::Triple(min, max) => {
            let list = list(value).ok_or_else(expected)?;
            let numbers: Vec<f64> = list
                .iter()
                .filter_map(|item| number(&item.kind, *min, *max))
                .collect();
            (list.len() == 3 && numbers.len() == 3)
                .then(|| numbers.into())
                .ok_or_else(expected)
        }
        Kind::Ascending => {
            let list = list(value).ok_or_else(expected)?;
            let numbers: Vec<f64> = list
                .iter()
                .filter_map(|item| number(&item.kind, 0.0, f64::INFINITY))
                .collect();
            (numbers.len() == list.len() && numbers.is_sorted())
                .then(|| numbers.into())
                .ok_or_else(expected)
        }
        Kind::Groups => groups(value).ok_or_else(expected),
        Kind::Address => match value {
            ValueKind::String(text) if text.parse::<SocketAddr>().is_ok() => {
                Ok(text.clone().into())
            }
            _ => Err(expected()),
        },
    }
}

fn as_whole(value: &ValueKind) -> Option<i64> {
    match value {
        ValueKind::I64(whole) => Some(*whole),
        ValueKind::U64(whole) => (*whole).try_into().ok(),
        ValueKind::I128(whole) => (*whole).try_into().ok(),
        ValueKind::U128(whole) => (*whole).try_into().ok(),
        _ => None,
    }
}

fn number(value: &ValueKind, min: f64, max: f64) -> Option<f64> {
    let number = match value {
        ValueKind::Float(number) => *number,
        other => as_whole(other)? as f64,
    };
    (number.is_finite() && (min..=max).contains(&number)).then_some(number)
}

fn list(value: &ValueKind) -> Option<&[Value]> {
    match value {
        ValueKind::Array(list) => Some(list),
        _ => None,
    }
}

fn groups(value: &ValueKind) -> Option<toml::Value> {
    let mut groups = Vec::new();
    for item in list(value)? {
        let ValueKind::Table(table) = &item.kind else {
            return None;
        };
        let (Some(name), Some(classes), 2) = (table.get("name"), table.get("classes"), table.len())
        else {
            return None;
        };
        let text = |value: &Value| match &value.kind {
            ValueKind::String(text) if !text.is_empty() => Some(toml::Value::from(text.clone())),
            _ => None,
        };
        let classes: Option<Vec<_>> = list(&classes.kind)?.iter().map(text).collect();
        let mut group = toml::Table::new();
        group.insert("name".into(), text(name)?);
        group.insert("classes".into(), classes?.into());
        groups.push(toml::Value::Table(group));
    }
    (!groups.is_empty()).then(|| groups.into())
}

/// A value as it was written, cut when it is long.
fn show(value: &ValueKind) -> String {
    let text = match value {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(list) => {
            format!(
                "[{}]",
                list.iter()
                    .map(|item| show(&item.kind))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
        ValueKind::Table(_) => "{ ... }".into(),
        other => other.to_string(),
    };
    if text.chars().count() <= 60 {
        text
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

/// Fails with every mistake there is.
pub(super) fn refuse(mistakes: Vec<Mistake>) -> Result<(), Mistakes> {
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(Mistakes(mistakes))
    }
}
