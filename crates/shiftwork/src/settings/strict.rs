//! Typed values out of a TOML table, every unknown key reported and every mistake with its place.
//!
//! Serde by itself stops at the first unknown key, if the application has asked it to mind them at
//! all, and does not say where a value of the wrong type stood. Here each struct's field names are
//! taken down on the way; keys that are none of them are reported and left out.

use std::cell::RefCell;

use serde::de::value::MapDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::{Table, Value, de::Error};

/// A key that is not right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands in the table, dotted; empty if it is the table as a whole.
    pub key: String,
    /// What is wrong.
    pub reason: String,
    /// The name that was probably meant, dotted as `key`, if the key is unknown.
    pub nearest: Option<String>,
}

/// What was noticed on the way.
#[derive(Default)]
struct Notes {
    unknown: Vec<Problem>,
    failed: Option<String>,
}

/// Reads a table as a `T`. The second part are the unknown keys, which are ignored otherwise.
pub(super) fn read<T: DeserializeOwned>(table: &Table) -> (Result<T, Problem>, Vec<Problem>) {
    let notes = RefCell::new(Notes::default());
    let value = Value::Table(table.clone());
    let read = T::deserialize(Node { value: &value, path: String::new(), notes: &notes });
    let notes = notes.into_inner();
    let read = read.map_err(|error| Problem {
        key: notes.failed.unwrap_or_default(),
        reason: plain(error.message()),
        nearest: None,
    });
    (read, notes.unknown)
}

/// Everything that is wrong with a table that should be a `T`, all of it at once: keys are tried
/// one by one over `T`'s default.
pub(super) fn problems<T: DeserializeOwned>(table: &Table, default: &Table) -> Vec<Problem> {
    let (read, mut found) = read_over::<T>(table.clone(), default);
    let Err(whole) = read else { return found };
    let mut blamed = false;
    for (key, value) in table {
        let mut single = default.clone();
        single.insert(key.clone(), value.clone());
        // The whole was read up to its first mistake only: unknown keys behind that are new.
        let (read, unknown) = read_over::<T>(single, default);
        let failed = read.err();
        blamed |= failed.is_some();
        for problem in unknown.into_iter().chain(failed) {
            if !found.contains(&problem) {
                found.push(problem);
            }
        }
    }
    if !blamed {
        found.push(whole);
    }
    found
}

fn read_over<T: DeserializeOwned>(
    mut table: Table,
    default: &Table,
) -> (Result<T, Problem>, Vec<Problem>) {
    for (key, value) in default {
        if !table.contains_key(key) {
            table.insert(key.clone(), value.clone());
        }
    }
    read(&table)
}

/// The field names of a struct, with their aliases; empty if it is none.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Names<'a>(&'a RefCell<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = Error;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0.borrow_mut() = fields;
            Err(Error::custom("names only"))
        }
        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }
    let names: RefCell<&'static [&'static str]> = RefCell::new(&[]);
    let _ = T::deserialize(Names(&names));
    names.into_inner()
}

/// Serde's words for types, in an operator's.
fn plain(message: &str) -> String {
    let mut text = message.trim_end().to_owned();
    for (serde, people) in [
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u16", "expected a whole number from 0 to 65535"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
        ("expected u64", "expected a whole number from 0"),
        ("expected usize", "expected a whole number from 0"),
        ("expected i32", "expected a whole number"),
        ("expected i64", "expected a whole number"),
        ("expected a boolean", "expected true or false"),
        ("expected path string", "expected a path"),
        ("expected a duration", "expected a duration, as \"30s\""),
        ("expected parsable string", "expected a size, as \"1MiB\""),
        ("expected an integer or string", "expected a size, as \"1MiB\""),
    ] {
        if let Some(start) = text.strip_suffix(serde) {
            text = format!("{start}{people}");
            break;
        }
    }
    text.replace("invalid type: map", "invalid type: table")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[derive(Clone)]
struct Node<'a> {
    value: &'a Value,
    path: String,
    notes: &'a RefCell<Notes>,
}

impl<'a> Node<'a> {
    fn map<'de, V: Visitor<'de>>(
        &self,
        table: &'a Table,
        fields: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { node: self.clone(), left: table.iter(), fields, value: None })
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Table(table) => self.map(table, None, visitor),
            Value::Array(items) => {
                visitor.visit_seq(Items { node: self.clone(), left: items.iter().enumerate() })
            }
            scalar => scalar.clone().deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            // Names that begin so are TOML's own types in disguise.
            Value::Table(table) if !name.starts_with('$') => self.map(table, Some(fields), visitor),
            // How TOML's date asks for itself: a struct of one private field, its text.
            Value::Datetime(date) if name.starts_with('$') && fields.len() == 1 => {
                let entry = std::iter::once((fields[0], date.to_string()));
                visitor.visit_map(MapDeserializer::new(entry))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.value.clone().deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Entries<'a> {
    node: Node<'a>,
    left: toml::map::Iter<'a, String, Value>,
    fields: Option<&'static [&'static str]>,
    value: Option<(&'a str, &'a Value)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        for (key, value) in self.left.by_ref() {
            if let Some(fields) = self.fields.filter(|it| !it.contains(&key.as_str())) {
                let nearest = super::names::nearest(key, fields.iter().copied());
                self.node.notes.borrow_mut().unknown.push(Problem {
                    key: join(&self.node.path, key),
                    reason: "there is no such setting".into(),
                    nearest: nearest.map(|it| join(&self.node.path, it)),
                });
                continue;
            }
            self.value = Some((key, value));
            return seed.deserialize(key.as_str().into_deserializer()).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (key, value) = self.value.take().ok_or_else(|| Error::custom("no value"))?;
        let path = join(&self.node.path, key);
        inner(&self.node, path, value, seed)
    }
}

struct Items<'a> {
    node: Node<'a>,
    left: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((index, value)) = self.left.next() else { return Ok(None) };
        let path = format!("{}[{index}]", self.node.path);
        inner(&self.node, path, value, seed).map(Some)
    }
}

/// Reads a value inside, and takes down where it was if it is wrong; the innermost place counts.
fn inner<'de, S: DeserializeSeed<'de>>(
    node: &Node<'_>,
    path: String,
    value: &Value,
    seed: S,
) -> Result<S::Value, Error> {
    let child = Node { value, path: path.clone(), notes: node.notes };
    seed.deserialize(child).inspect_err(|_| {
        node.notes.borrow_mut().failed.get_or_insert(path);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        #[serde(default, alias = "amount")]
        count: u32,
        when: Option<toml::value::Datetime>,
    }

    #[derive(Debug, Deserialize, PartialEq, Clone, Copy)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Small,
        Large(u8),
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Outer {
        name: String,
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        kind: Option<Kind>,
        ratio: Option<f64>,
    }

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    #[test]
    fn every_shape_of_value_is_read() {
        let text = "name = 'a'\nratio = 2\nkind = { large = 3 }\n\
                    inner = { amount = 1, when = 1979-05-27 }\nlist = [{ count = 5 }]";
        let (read, unknown) = read::<Outer>(&table(text));
        let outer = read.unwrap();
        assert_eq!(unknown, []);
        assert_eq!(outer.inner.unwrap().when.unwrap().to_string(), "1979-05-27");
        assert_eq!(
            (outer.list[0].count, outer.kind, outer.ratio),
            (5, Some(Kind::Large(3)), Some(2.0))
        );
        let (read, _) = super::read::<Outer>(&table("name = 'a'\nkind = 'small'"));
        assert_eq!(read.unwrap().kind, Some(Kind::Small));
    }

    #[test]
    fn unknown_keys_are_found_at_any_depth_with_the_nearest_name() {
        let (read, unknown) =
            read::<Outer>(&table("name = 'a'\nnmae = 1\nlist = [{ cuont = 1 }, { zzzzz = 1 }]"));
        assert!(read.is_ok());
        let found: Vec<_> = unknown.iter().map(|it| (&*it.key, it.nearest.as_deref())).collect();
        let expected = [
            ("list[0].cuont", Some("list[0].count")),
            ("list[1].zzzzz", None),
            ("nmae", Some("name")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn mistakes_have_a_place_and_are_found_together() {
        let default = table("name = 'default'");
        let wrong = table("name = 1\ninner = { count = -1 }\nkind = 'huge'");
        let found = problems::<Outer>(&wrong, &default);
        let keys: Vec<_> = found.iter().map(|it| &*it.key).collect();
        assert_eq!(keys, ["inner.count", "kind", "name"]);
        assert!(found[0].reason.contains("whole number"), "{}", found[0].reason);
        let found = problems::<Outer>(&table("inner = 1\nnmae = 'a'"), &default);
        let keys: Vec<_> = found.iter().map(|it| &*it.key).collect();
        assert_eq!(keys, ["inner", "nmae"], "unknown keys behind a mistake, too");
    }

    #[test]
    fn field_names() {
        assert_eq!(fields::<Inner>(), ["amount", "count", "when"].as_slice());
        assert_eq!(fields::<u32>(), [""; 0].as_slice());
    }
}
