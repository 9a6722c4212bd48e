//! `--feature-gates`: etcd's gates, each with what this version makes of it.

use super::ConfigError;

/// What is to be said about a gate that is moved from its default.
enum Moved {
    /// It changes nothing here.
    NoEffect,
    /// What it asks for is not there.
    NotYet,
}

const GATES: [(&str, bool, Moved); 11] = [
    ("AllAlpha", false, Moved::NotYet),
    ("AllBeta", false, Moved::NoEffect),
    ("CompactHashCheck", false, Moved::NotYet),
    ("FastLeaseKeepAlive", true, Moved::NoEffect),
    ("InitialCorruptCheck", false, Moved::NotYet),
    ("LeaseCheckpoint", false, Moved::NotYet),
    ("LeaseCheckpointPersist", false, Moved::NotYet),
    ("PriorityRequest", false, Moved::NotYet),
    ("SetMemberLocalAddr", false, Moved::NotYet),
    ("StopGRPCServiceOnDefrag", false, Moved::NoEffect),
    ("TxnModeWriteWithSharedBuffer", true, Moved::NoEffect),
];

/// Checks the list; sentences for gates without effect go to `notices`.
pub(super) fn check(text: &str, notices: &mut Vec<String>) -> Result<(), ConfigError> {
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let parsed = item
            .split_once('=')
            .and_then(|(name, value)| Some((name, super::value::boolean(value)?)));
        let Some((name, value)) = parsed else {
            return Err(ConfigError::usage(format!(
                "--feature-gates has {item:?}, but must be a list of Feature=true or Feature=false"
            )));
        };
        let Some((_, default, moved)) = GATES.iter().find(|(gate, ..)| *gate == name) else {
            let names: Vec<&str> = GATES.iter().map(|(gate, ..)| *gate).collect();
            return Err(ConfigError::usage(format!(
                "--feature-gates has no feature {name:?}: there are {}",
                names.join(", ")
            )));
        };
        match moved {
            _ if value == *default => {}
            Moved::NoEffect => notices.push(format!("--feature-gates {item} has no effect")),
            Moved::NotYet => {
                return Err(ConfigError::invalid(format!(
                    "--feature-gates {item} is not supported yet: leave it at {default}"
                )));
            }
        }
    }
    Ok(())
}
