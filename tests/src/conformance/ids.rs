//! The list of claims, and the claims that cases name.
//!
//! A claim is an id and one line (`tests/conformance/ids.txt`). It has a case, or is `later` with the
//! reason in brackets; only what needs authentication, several members or an older version may be. A
//! case that Quorate runs later is none: what only such cases show is `later` too.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};

use super::script::{LATER, Script};

/// Why a claim may be left for later.
const REASONS: [&str; 3] = ["authentication", LATER[0], LATER[1]];

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What it says.
    pub text: String,
    /// Why it has no case that runs on Quorate yet.
    pub later: Option<String>,
}

/// Reads the list.
///
/// # Errors
/// When a line is no claim, an id is there twice, or a reason is none.
pub fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Claim>> {
    let mut claims = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (id, rest) = line.split_once(' ').with_context(|| format!("`{line}` is no claim"))?;
        let rest = rest.trim_start();
        let claim = match rest.strip_prefix("later (") {
            None => Claim { text: rest.to_owned(), later: None },
            Some(rest) => {
                let (reason, text) = rest.split_once("): ").with_context(|| line.to_owned())?;
                if !REASONS.contains(&reason) {
                    bail!("{id} is later for a reason that is none of {REASONS:?}: {reason}");
                }
                Claim { text: text.to_owned(), later: Some(reason.to_owned()) }
            }
        };
        if claims.insert(id.to_owned(), claim).is_some() {
            bail!("{id} is listed twice");
        }
    }
    Ok(claims)
}

/// What does not fit between claims and cases, one line each.
pub fn misfits(claims: &BTreeMap<String, Claim>, scripts: &[Script]) -> Vec<String> {
    let mut named = BTreeSet::new();
    let mut misfits = Vec::new();
    for script in scripts {
        for case in &script.cases {
            let place = format!("{}.txt:{}", script.name, case.line);
            if case.ids.is_empty() {
                misfits.push(format!("{place}: a case that shows no claim"));
            }
            for id in &case.ids {
                match claims.get(id) {
                    None => misfits.push(format!("{place}: nobody claims {id}")),
                    Some(claim) if claim.later.is_some() && case.later.is_none() => {
                        misfits.push(format!("{place}: {id} is later, and this case runs now"));
                    }
                    Some(_) if case.later.is_none() => {
                        named.insert(id.as_str());
                    }
                    Some(_) => {}
                }
            }
        }
    }
    for (id, claim) in claims {
        if claim.later.is_none() && !named.contains(id.as_str()) {
            misfits.push(format!("{id} has no case: {}", claim.text));
        }
    }
    misfits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_without_a_case_and_a_case_without_a_claim_are_found() {
        let claims = "# x\n3.1.1  One.\n3.1.2 Two.\n3.1.3 Three.\n\
                      3.7.1 later (authentication): Four.\n3.7.2 later (several members): Five.\n";
        let claims = parse(claims).unwrap();
        let cases = "# case: A [3.1.1]\n# case: B [9.9 3.7.1]\nput a\n----\n\n\
                     # case: C [3.1.3 3.7.2]\n# needs: several members\nput a\n----\n";
        let script = Script::parse("x", cases).unwrap();
        let expected = [
            "x.txt:2: nobody claims 9.9",
            "x.txt:2: 3.7.1 is later, and this case runs now",
            "3.1.2 has no case: Two.",
            "3.1.3 has no case: Three.",
        ];
        assert_eq!(misfits(&claims, &[script]), expected);
    }

    #[test]
    fn later_needs_a_reason_that_counts() {
        assert!(parse("3.1.1 later (no time): X.\n").is_err());
        assert!(parse("3.1.1 X.\n3.1.1 Y.\n").is_err());
    }
}
