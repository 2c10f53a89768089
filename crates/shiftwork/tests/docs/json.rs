//! The JSON forms in `docs/signals-and-commands.md`: every field that there is, and examples that
//! can be read.

use std::cell::RefCell;

use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use shiftwork_supervisor::control::latency::Latency;
use shiftwork_supervisor::control::status::{
    ListenerStatus, ProcessStatus, ReleaseStatus, Status, Totals,
};
use shiftwork_supervisor::control::{History, Request};
use shiftwork_supervisor::core::history::{Asked, Entry};
use shiftwork_supervisor::core::outcome::{Outcome, Progress};
use shiftwork_supervisor::core::slots::Slot;

use crate::tables::read;

/// The names of a struct's fields, which serde tells whoever is asked to read one.
fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
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

#[test]
fn every_field_has_its_words() {
    let page = read("docs/signals-and-commands.md");
    let structs = [
        ("outcome", fields::<Outcome>()),
        ("progress", fields::<Progress>()),
        ("slot", fields::<Slot>()),
        ("status", fields::<Status>()),
        ("listener", fields::<ListenerStatus>()),
        ("release", fields::<ReleaseStatus>()),
        ("process", fields::<ProcessStatus>()),
        ("totals", fields::<Totals>()),
        ("latency", fields::<Latency>()),
        ("history", fields::<History>()),
        ("entry", fields::<Entry>()),
        ("request", fields::<Asked>()),
    ];
    for (name, fields) in structs {
        assert!(!fields.is_empty(), "{name} has no fields");
        let known = |field: &&&str| {
            page.contains(&format!("`{field}`")) || page.contains(&format!("\"{field}\""))
        };
        let missing: Vec<_> = fields.iter().filter(|it| !known(it)).collect();
        assert!(missing.is_empty(), "docs/signals-and-commands.md: {name} lacks {missing:?}");
    }
}

#[test]
fn the_examples_can_be_read() {
    let page = read("docs/signals-and-commands.md");
    let blocks = page.split("```json\n").skip(1).filter_map(|it| it.split("```").next());
    let (mut requests, mut outcomes) = (0, 0);
    for line in blocks.flat_map(str::lines) {
        if line.starts_with("{\"verb\"") {
            let read = serde_json::from_str::<Request>(line);
            assert!(read.is_ok(), "{line}: {read:?}");
            requests += 1;
        } else {
            let read = serde_json::from_str::<Outcome>(line);
            assert!(read.is_ok(), "{line}: {read:?}");
            outcomes += 1;
        }
    }
    assert!(requests >= 4 && outcomes >= 1, "{requests} requests, {outcomes} outcomes");
}
