//! The text of a variable or a flag as the value that the setting wants.

use toml::{Table, Value};

/// The value that `text` most probably means, where the known default is of this type.
///
/// A known default decides: a string stays as it was typed, so that release `2` is not a number. Without
/// one, or if the guess is not accepted, TOML decides, and what is neither is a string.
pub(super) fn coerce(
    text: &str,
    default: Option<&Value>,
    accepted: impl Fn(&Value) -> bool,
) -> Value {
    let string = || Value::String(text.to_owned());
    let toml = parse(text);
    let guess = match (default, &toml) {
        // Quotes out of a TOML file, pasted into a shell.
        (Some(Value::String(_)), Some(Value::String(inner))) => Value::String(inner.clone()),
        (Some(Value::String(_)), _) => string(),
        (Some(Value::Boolean(_)), _) => switch(text).unwrap_or_else(string),
        (Some(Value::Float(_)), Some(Value::Integer(number))) => Value::Float(*number as f64),
        (_, Some(value)) => value.clone(),
        (_, None) => string(),
    };
    if accepted(&guess) {
        return guess;
    }
    let others = [toml, Some(string())];
    others.into_iter().flatten().find(|it| accepted(it)).unwrap_or(guess)
}

/// The text that a string setting takes: without the quotes of a TOML file, if it has some.
pub(super) fn unquoted(text: &str) -> String {
    match parse(text) {
        Some(Value::String(inner)) => inner,
        _ => text.to_owned(),
    }
}

fn switch(text: &str) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(Value::Boolean(true)),
        "false" | "no" | "off" | "0" => Some(Value::Boolean(false)),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Value> {
    // A line break would let a value smuggle in further keys.
    if text.contains(['\n', '\r']) {
        return None;
    }
    let mut table: Table = format!("v = {text}").parse().ok()?;
    if table.len() == 1 { table.remove("v") } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_default_decides() {
        let any = |_: &Value| true;
        let string = Value::String("1".into());
        assert_eq!(coerce("2", Some(&string), any), Value::String("2".into()));
        assert_eq!(coerce("true", Some(&string), any), Value::String("true".into()));
        assert_eq!(coerce("\"2\"", Some(&string), any), Value::String("2".into()));
        assert_eq!(coerce("2", Some(&Value::Integer(0)), any), Value::Integer(2));
        assert_eq!(coerce("many", Some(&Value::Integer(0)), any), Value::String("many".into()));
        assert_eq!(coerce("2", Some(&Value::Float(0.5)), any), Value::Float(2.0));
        assert_eq!(coerce("on", Some(&Value::Boolean(false)), any), Value::Boolean(true));
        assert_eq!(
            coerce("[1, 2]", Some(&Value::Array(Vec::new())), any),
            Value::Array(vec![Value::Integer(1), Value::Integer(2)])
        );
    }

    #[test]
    fn without_a_default_it_is_what_is_accepted() {
        assert_eq!(coerce("7", None, |it| it.is_str()), Value::String("7".into()));
        assert_eq!(coerce("7", None, Value::is_integer), Value::Integer(7));
        assert_eq!(coerce("a b", None, |_| true), Value::String("a b".into()));
        assert_eq!(coerce("1\nw = 2", None, |_| true), Value::String("1\nw = 2".into()));
    }
}
