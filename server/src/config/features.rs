//! `--feature-gates`: etcd's gates, each with what this version makes of it.

use super::ConfigError;

/// What is to be said about a gate that is moved from its default.
enum Moved {
    /// It changes nothing here.
    NoEffect,
    /// What it asks for is not there.
    NotYet,
    /// It does what it says.
    Used,
}

/// The gates that mean something here.
pub(super) struct Gates {
    /// `LeaseCheckpoint`. On, where etcd's default is off: a lease would live up to twice its time.
    pub(super) lease_checkpoint: bool,
}

const GATES: [(&str, bool, Moved); 11] = [
    ("AllAlpha", false, Moved::NotYet),
    ("AllBeta", false, Moved::NoEffect),
    ("CompactHashCheck", false, Moved::NotYet),
    ("FastLeaseKeepAlive", true, Moved::NoEffect),
    ("InitialCorruptCheck", false, Moved::NotYet),
    ("LeaseCheckpoint", true, Moved::Used),
    // What is left of a lease is stored whenever it is written down.
    ("LeaseCheckpointPersist", true, Moved::NoEffect),
    ("PriorityRequest", false, Moved::NotYet),
    ("SetMemberLocalAddr", false, Moved::NotYet),
    ("StopGRPCServiceOnDefrag", false, Moved::NoEffect),
    ("TxnModeWriteWithSharedBuffer", true, Moved::NoEffect),
];

/// Reads the list; sentences for gates without effect go to `notices`.
pub(super) fn read(text: &str, notices: &mut Vec<String>) -> Result<Gates, ConfigError> {
    let mut gates = Gates { lease_checkpoint: true };
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
            Moved::Used => gates.lease_checkpoint = value,
            _ if value == *default => {}
            Moved::NoEffect => notices.push(format!("--feature-gates {item} has no effect")),
            Moved::NotYet => {
                return Err(ConfigError::invalid(format!(
                    "--feature-gates {item} is not supported yet: leave it at {default}"
                )));
            }
        }
    }
    Ok(gates)
}
