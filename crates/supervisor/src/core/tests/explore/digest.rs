//! What tells two states apart: everything but names, texts, and the time of day.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::core::event::{Event, Millis};

use super::Walk;

/// Fields that say when something is due.
const DUE: [&str; 9] = [
    "kill_at",
    "ready_by",
    "stuck",
    "due",
    "until",
    "retry_at",
    "loaded_by",
    "deadline",
    "stop_at",
];
/// Fields that say since when something is so.
const SINCE: [&str; 2] = ["since", "serving_since"];
/// Fields that nothing follows from.
const IDLE: [&str; 10] = [
    "now",
    "began",
    "failure",
    "crash",
    "reason",
    "reported",
    "next_child",
    "pids",
    "history",
    "tally",
];
/// Longer ages are all one: the longest that anything follows from.
const OLD: Millis = 10_000;

impl Walk {
    /// States with the same digest have the same future.
    pub(super) fn digest(&mut self) -> u128 {
        let core = &mut self.world.core;
        // Long, and always the same.
        let hellos: Vec<_> = core.generations.values_mut().map(|it| it.hello.take()).collect();
        let started_with = core.started_with.take();
        core.history = Default::default();
        core.tally = Default::default();
        let mut value = serde_json::to_value(&*core).unwrap();
        let told: Vec<bool> = hellos.iter().map(Option::is_some).collect();
        for (state, hello) in core.generations.values_mut().zip(hellos) {
            state.hello = hello;
        }
        core.started_with = started_with;
        let world = &self.world;
        make_relative(&mut value, world.now);
        let events: Vec<String> = world.events.iter().map(brief).collect();
        let rest = (
            &world.templates,
            &world.processes,
            &world.hooks,
            world.exit,
            world.used,
            &world.opened,
            &self.budget,
            self.died,
        );
        let text = format!("{value} {told:?} {events:?} {rest:?}");
        let hash = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, &text).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        hash(0) << 64 | hash(1)
    }
}

fn make_relative(value: &mut Value, now: Millis) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !IDLE.contains(&name.as_str()));
            for (name, field) in fields {
                match field.as_u64() {
                    Some(Millis::MAX) => {}
                    Some(at) if DUE.contains(&name.as_str()) => {
                        *field = at.saturating_sub(now).into();
                    }
                    Some(at) if SINCE.contains(&name.as_str()) => {
                        *field = now.saturating_sub(at).min(OLD).into();
                    }
                    _ => make_relative(field, now),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|it| make_relative(it, now)),
        _ => {}
    }
}

/// An event in a word: what a template says of its release is long, and always the same.
pub(super) fn brief(event: &Event) -> String {
    match event {
        Event::Hello { generation, .. } => format!("Hello {{ generation: {generation} }}"),
        other => format!("{other:?}"),
    }
}
