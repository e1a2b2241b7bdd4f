//! What was said about the config, and where: five layers, merged so that the later one wins and every value keeps
//! its origin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::keys::{self, KEYS};
use super::mistake::{Mistake, Mistakes};

/// Environment variables of the config begin with this and hold `__` between section and key.
const ENVIRONMENT_PREFIX: &str = "HGAT_";

/// Where a config comes from, from the weakest layer to the strongest.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config FILE`.
    pub file: Option<PathBuf>,
    /// The process's environment, as far as it may concern the config.
    pub environment: BTreeMap<String, String>,
    /// Each `--set section.key=value`.
    pub set: Vec<String>,
    /// (key, flag as typed, value) of dedicated flags such as `--workers`.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// Takes from `variables` what may concern the config.
    #[must_use]
    pub fn with_environment(
        mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let ours = |name: &str| {
            name.strip_prefix(ENVIRONMENT_PREFIX)
                .is_some_and(|rest| rest.contains("__"))
        };
        self.environment = variables
            .into_iter()
            .filter(|(name, _)| ours(name))
            .collect();
        self
    }

    /// Everything that was said, as `section.key` to value with origin.
    pub(super) fn merge(&self) -> Result<BTreeMap<String, Value>, Mistakes> {
        let mut builder = config::Config::builder();
        if let Some(file) = &self.file {
            builder = builder.add_source(File::from(file.as_path()).format(FileFormat::Toml));
        }
        let environment = self.environment.iter().map(|(name, value)| {
            let key = name[ENVIRONMENT_PREFIX.len()..]
                .to_lowercase()
                .replacen("__", ".", 1);
            Said::new(key, format!("environment variable {name}"), value)
        });
        let (set, mut malformed) = self.read_set();
        let flags = self
            .flags
            .iter()
            .map(|(key, flag, value)| Said::new((*key).into(), (*flag).into(), value));
        let flags: Vec<Said> = flags.collect();
        malformed.extend(contradicting(&set, &flags));
        builder = builder.add_source(Layer(environment.collect()));
        builder = builder.add_source(Layer(set));
        builder = builder.add_source(Layer(flags));
        let merged = builder.build().map_err(|error| self.unreadable(&error))?;
        if !malformed.is_empty() {
            return Err(Mistakes(malformed));
        }
        let mut flat = BTreeMap::new();
        flatten(String::new(), merged.cache, &mut flat);
        Ok(flat)
    }

    fn read_set(&self) -> (Vec<Said>, Vec<Mistake>) {
        let (mut said, mut malformed) = (Vec::new(), Vec::new());
        for argument in &self.set {
            match argument.split_once('=') {
                Some((key, value)) => {
                    said.push(Said::new(key.trim().into(), "--set".into(), value.trim()))
                }
                None => malformed.push(Mistake {
                    key: argument.clone(),
                    value: None,
                    origin: "--set".into(),
                    problem:
                        "has no value: write --set section.key=value, e.g. --set train.epochs=10"
                            .into(),
                }),
            }
        }
        (said, malformed)
    }

    fn unreadable(&self, error: &ConfigError) -> Mistakes {
        let file = self
            .file
            .as_deref()
            .map(|file| file.display().to_string())
            .unwrap_or_default();
        let problem = match self.file.as_deref().map(std::fs::read_to_string) {
            Some(Err(error)) => format!("cannot be read ({error}): check the path"),
            Some(Ok(text)) => match text.parse::<toml::Table>() {
                Err(error) => format!("is not TOML: {}", error.to_string().trim_end()),
                Ok(_) => error.to_string(),
            },
            None => error.to_string(),
        };
        Mistakes(vec![Mistake {
            key: file,
            value: None,
            origin: "--config".into(),
            problem,
        }])
    }
}

/// Flags that say another thing than --set does of the same key: which of the two was meant is not for a rule to decide. A
/// key that was set twice has its last value.
fn contradicting(set: &[Said], flags: &[Said]) -> Vec<Mistake> {
    let against = |flag: &Said| {
        let said = set.iter().rfind(|said| said.key == flag.key)?;
        (said.value.kind != flag.value.kind).then(|| Mistake {
            key: flag.key.clone(),
            value: Some(flag.value.kind.to_string()),
            origin: flag.value.origin().unwrap_or_default().to_owned(),
            problem: format!(
                "--set says {} of the same key: leave one of the two out",
                said.value.kind
            ),
        })
    };
    flags.iter().filter_map(against).collect()
}

/// The values of the table of keys.
pub(super) fn defaults() -> BTreeMap<String, Value> {
    let set = KEYS.iter().filter(|key| !key.default.is_empty());
    set.map(|key| {
        (
            key.name.to_owned(),
            Value::new(Some(&super::DEFAULT.to_owned()), parse_toml(key.default)),
        )
    })
    .collect()
}

/// One value as it was typed.
#[derive(Clone, Debug)]
struct Said {
    key: String,
    value: Value,
}

impl Said {
    fn new(key: String, origin: String, text: &str) -> Self {
        let as_it_stands = keys::find(&key).is_none_or(|key| key.kind.is_text());
        let value = if as_it_stands || text.is_empty() {
            ValueKind::String(text.into())
        } else {
            parse_toml(text)
        };
        Self {
            key,
            value: Value::new(Some(&origin), value),
        }
    }
}

/// A layer of values, as the `config` crate wants it.
#[derive(Clone, Debug)]
struct Layer(Vec<Said>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self
            .0
            .iter()
            .map(|said| (said.key.clone(), said.value.clone()))
            .collect())
    }
}

/// A value written in TOML; anything else is text.
fn parse_toml(text: &str) -> ValueKind {
    let parsed = format!("value = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("value"));
    parsed.map_or_else(|| ValueKind::String(text.into()), from_toml)
}

fn from_toml(value: toml::Value) -> ValueKind {
    match value {
        toml::Value::String(text) => ValueKind::String(text),
        toml::Value::Integer(number) => ValueKind::I64(number),
        toml::Value::Float(number) => ValueKind::Float(number),
        toml::Value::Boolean(switch) => ValueKind::Boolean(switch),
        toml::Value::Datetime(time) => ValueKind::String(time.to_string()),
        toml::Value::Array(list) => ValueKind::Array(
            list.into_iter()
                .map(|value| Value::new(None, from_toml(value)))
                .collect(),
        ),
        toml::Value::Table(table) => ValueKind::Table(
            table
                .into_iter()
                .map(|(key, value)| (key, Value::new(None, from_toml(value))))
                .collect(),
        ),
    }
}

/// Tables become dotted keys; a table at a known key stays, for the check to refuse it by name.
fn flatten(prefix: String, value: Value, flat: &mut BTreeMap<String, Value>) {
    match value.kind {
        ValueKind::Table(table) if keys::find(&prefix).is_none() => {
            for (key, value) in table {
                let key = if prefix.is_empty() {
                    key
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(key, value, flat);
            }
        }
        _ => {
            flat.insert(prefix, value);
        }
    }
}
