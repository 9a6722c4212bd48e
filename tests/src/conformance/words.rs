//! Words of a command: quoted, escaped, repeated.

use anyhow::{Context as _, bail};

/// Splits a line at spaces outside of quotes. Quotes and escapes stay; [`bytes()`] takes them off.
///
/// # Errors
/// When a quote is not closed.
pub fn split(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        if c == ' ' && !quoted {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = c == '\\' && !escaped;
        word.push(c);
    }
    if quoted {
        bail!("a quote is not closed in `{line}`");
    }
    if !word.is_empty() {
        words.push(word);
    }
    Ok(words)
}

/// The two sides of the first `separator` outside of quotes.
pub fn split_at<'a>(word: &'a str, separator: &str) -> Option<(&'a str, &'a str)> {
    let mut quoted = false;
    for (at, c) in word.char_indices() {
        if c == '"' {
            quoted = !quoted;
        }
        if !quoted && word[at..].starts_with(separator) {
            return Some((&word[..at], &word[at + separator.len()..]));
        }
    }
    None
}

/// The bytes that a word stands for: quotes off, escapes resolved, `x*5` repeated.
///
/// # Errors
/// When an escape is none.
pub fn bytes(word: &str) -> anyhow::Result<Vec<u8>> {
    if let Some((unit, count)) = split_at(word, "*") {
        let count: usize = count.parse().with_context(|| format!("`{word}` is no repetition"))?;
        return Ok(bytes(unit)?.repeat(count));
    }
    let mut bytes = Vec::new();
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {}
            b'\\' => bytes.push(match rest.next() {
                Some(b'0') => 0,
                Some(b'n') => b'\n',
                Some(b's') => b' ',
                Some(b'x') => {
                    let digits = [rest.next().unwrap_or(b'?'), rest.next().unwrap_or(b'?')];
                    let digits = std::str::from_utf8(&digits)?;
                    u8::from_str_radix(digits, 16).with_context(|| format!("`\\x{digits}`"))?
                }
                Some(other) => other,
                None => bail!("`{word}` ends with a backslash"),
            }),
            _ => bytes.push(byte),
        }
    }
    Ok(bytes)
}

/// Bytes as a word: what is not plain is escaped, what is long and uniform is a repetition.
pub fn escaped(bytes: &[u8]) -> String {
    const PLAIN_MAX: usize = 80;
    if bytes.len() > 8 && bytes.iter().all(|byte| *byte == bytes[0]) {
        return format!("{}*{}", escaped(&bytes[..1]), bytes.len());
    }
    if bytes.len() > PLAIN_MAX {
        return format!("<{} bytes>", bytes.len());
    }
    let mut word = String::new();
    for byte in bytes {
        match byte {
            0 => word.push_str("\\0"),
            b'\\' => word.push_str("\\\\"),
            0x21..=0x7e => word.push(char::from(*byte)),
            other => word.push_str(&format!("\\x{other:02x}")),
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_outside_of_quotes() {
        let line = r#"put a="x y"  b\x20=c"#;
        assert_eq!(split(line).unwrap(), ["put", r#"a="x y""#, r"b\x20=c"]);
        assert!(split("a \"b").is_err());
        assert_eq!(split_at(r#""a=b"=c"#, "="), Some((r#""a=b""#, "c")));
        assert_eq!(split_at("a", ".."), None);
    }

    #[test]
    fn bytes_are_what_was_escaped() {
        assert_eq!(bytes(r#""a b"\x00\0"#).unwrap(), b"a b\0\0");
        assert_eq!(bytes("x*3").unwrap(), b"xxx");
        assert_eq!(bytes("\"\"").unwrap(), b"");
        assert!(bytes(r"\xg0").is_err());
        assert!(bytes(r"\").is_err());
        for plain in [&b"a\0\xff\\ b"[..], b"xxxxxxxxxxxx", b""] {
            assert_eq!(bytes(&escaped(plain)).unwrap(), plain);
        }
    }
}
