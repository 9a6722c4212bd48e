//! The command line and the environment, merged into one value per flag.

use std::collections::BTreeMap;
use std::time::Duration;

use super::flags::{self, Fate, Flag, Kind};
use super::{ConfigError, value};

/// The value of each flag that was set, checked against its kind.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    given: BTreeMap<&'static str, Given>,
    /// What a person should know but what does not stop the start.
    pub(crate) notices: Vec<String>,
}

#[derive(Debug)]
struct Given {
    text: String,
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    CommandLine,
    Environment,
}

impl From {
    /// The name under which it was given there.
    fn name_of(self, flag: &Flag) -> String {
        match self {
            Self::CommandLine => format!("--{}", flag.name),
            Self::Environment => flag.env(),
        }
    }
}

impl Settings {
    /// Reads arguments (without the program's name) and environment variables.
    pub(crate) fn read(
        args: impl IntoIterator<Item = String>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        settings.read_args(&mut args.into_iter())?;
        if settings.flag("help") || settings.flag("h") || settings.flag("version") {
            return Ok(settings);
        }
        settings.read_env(env)?;
        settings.refuse_unsupported()?;
        Ok(settings)
    }

    fn read_args(&mut self, args: &mut dyn Iterator<Item = String>) -> Result<(), ConfigError> {
        while let Some(arg) = args.next() {
            let Some(body) = arg.strip_prefix('-') else {
                return Err(ConfigError::usage(format!(
                    "{arg:?} is not a flag: flags begin with --, and a switch takes its value after \
                     =, like --pre-vote=false"
                )));
            };
            let body = body.strip_prefix('-').unwrap_or(body);
            if body.is_empty() {
                return Err(ConfigError::usage(format!("{arg:?} is not a flag")));
            }
            let (name, inline) = match body.split_once('=') {
                Some((name, text)) => (name, Some(text.to_owned())),
                None => (body, None),
            };
            let flag = flags::find(name).ok_or_else(|| unknown(name))?;
            let text = match inline {
                Some(text) => text,
                None if flag.kind == Kind::Bool => "true".to_owned(),
                None => args.next().ok_or_else(|| {
                    let expected = flag.kind.expected();
                    ConfigError::usage(format!(
                        "--{name} needs a value, {expected}: write --{name}=..."
                    ))
                })?,
            };
            self.set(flag, text, From::CommandLine)?;
        }
        Ok(())
    }

    fn read_env(
        &mut self,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let known: BTreeMap<String, &'static Flag> = flags::flags()
            .iter()
            .filter(|flag| flag.has_env())
            .map(|flag| (flag.env(), flag))
            .collect();
        let mut unknown = Vec::new();
        for (name, text) in env {
            match known.get(&name) {
                // etcd skips variables that are set to nothing.
                Some(_) if text.is_empty() => {}
                Some(flag) if self.given.contains_key(flag.name) => {
                    return Err(ConfigError::invalid(format!(
                        "--{} and the environment variable {name} are both set: remove one of them",
                        flag.name
                    )));
                }
                Some(flag) => self.set(flag, text, From::Environment)?,
                None if is_unknown(&name) => unknown.push(name),
                None => {}
            }
        }
        unknown.sort_unstable();
        for name in unknown {
            self.notices.push(format!("the environment variable {name} names no setting"));
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, text: String, from: From) -> Result<(), ConfigError> {
        if flag.fate == Fate::Legacy {
            self.notices.push(format!("{} has no effect any more", from.name_of(flag)));
            return Ok(());
        }
        if !flag.kind.admits(&text) {
            let name = from.name_of(flag);
            let expected = flag.kind.expected();
            let sentence = format!("{name} is {text:?}, but must be {expected}");
            return Err(match from {
                From::CommandLine => ConfigError::usage(sentence),
                From::Environment => ConfigError::invalid(sentence),
            });
        }
        self.given.insert(flag.name, Given { text, from });
        Ok(())
    }

    fn refuse_unsupported(&mut self) -> Result<(), ConfigError> {
        for (name, given) in &self.given {
            let Some(flag) = flags::find(name) else { continue };
            if same(&flag.kind, &given.text, flag.default) {
                continue;
            }
            let name = given.from.name_of(flag);
            match flag.fate {
                Fate::Used | Fate::Legacy => {}
                Fate::Idle(why) => self.notices.push(format!("{name} has no effect: {why}")),
                Fate::Later(why) => {
                    return Err(ConfigError::invalid(format!(
                        "{name} is not supported yet: {why}"
                    )));
                }
                Fate::Never(why) => {
                    return Err(ConfigError::invalid(format!("{name} is not supported: {why}")));
                }
            }
        }
        Ok(())
    }

    /// Whether the flag was given at all.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// What a sentence calls the setting: the variable if it came from the environment, else the flag.
    pub(crate) fn label(&self, name: &str) -> String {
        match (self.given.get(name), flags::find(name)) {
            (Some(given), Some(flag)) => given.from.name_of(flag),
            _ => format!("--{name}"),
        }
    }

    /// The value, or the default.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.given.get(name) {
            Some(given) => &given.text,
            None => flags::find(name).map_or("", |flag| flag.default),
        }
    }

    /// A switch.
    pub(crate) fn flag(&self, name: &str) -> bool {
        value::boolean(self.text(name)).unwrap_or_default()
    }

    /// A whole number.
    pub(crate) fn int(&self, name: &str) -> i64 {
        value::integer(self.text(name)).and_then(|v| i64::try_from(v).ok()).unwrap_or_default()
    }

    /// A whole number, 0 or more.
    pub(crate) fn uint(&self, name: &str) -> u64 {
        value::integer(self.text(name)).and_then(|v| u64::try_from(v).ok()).unwrap_or_default()
    }

    /// A duration.
    pub(crate) fn duration(&self, name: &str) -> Duration {
        value::duration(self.text(name)).unwrap_or_default()
    }
}

fn same(kind: &Kind, left: &str, right: &str) -> bool {
    match kind {
        Kind::Bool => value::boolean(left) == value::boolean(right),
        Kind::Int | Kind::Uint => value::integer(left) == value::integer(right),
        Kind::Duration => value::duration(left) == value::duration(right),
        Kind::Text | Kind::Urls | Kind::Choice(_) => left == right,
    }
}

fn unknown(name: &str) -> ConfigError {
    let hint = match flags::suggestion(name) {
        Some(found) => format!("did you mean --{found}?"),
        None => "--help lists all flags".to_owned(),
    };
    ConfigError::usage(format!("there is no flag --{name}: {hint}"))
}

/// Kubernetes sets variables like `ETCD_SERVICE_HOST` for a service named `etcd`: those say nothing.
fn is_unknown(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("ETCD_").or_else(|| name.strip_prefix("QUORATE_")) else {
        return false;
    };
    let known_otherwise = ["VERSION", "UNSUPPORTED_ARCH", "HELP"].contains(&rest);
    let of_kubernetes = rest.starts_with("SERVICE_") || rest.starts_with("PORT");
    !known_otherwise && !of_kubernetes
}
