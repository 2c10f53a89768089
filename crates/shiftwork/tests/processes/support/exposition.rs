//! Reads metrics as a strict Prometheus would, in the OpenMetrics text format.

use std::collections::{BTreeMap, BTreeSet};

use super::shop::Shop;

/// What a server exposes now.
#[track_caller]
pub(crate) fn scrape(shop: &Shop) -> Exposition {
    Exposition::read(&shop.site.run(&["metrics"]).expect(0).stdout)
}

type Labels = BTreeMap<String, String>;

/// Everything that was exposed.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    /// Reads a text; whatever is wrong with it fails the test.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let body = text.strip_suffix("# EOF").unwrap_or_else(|| panic!("no end in {text}"));
        let mut all = Self::default();
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "twice: {line}");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
                assert_eq!(name, family, "a type without its help");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                all.kinds.insert(family.clone(), kind.to_owned());
            } else {
                let (name, labels, value) = sample(line).unwrap_or_else(|| panic!("{line}"));
                let suffix =
                    name.strip_prefix(&family).unwrap_or_else(|| panic!("strayed: {line}"));
                let fitting: &[&str] = match all.kinds[&family].as_str() {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    _ => &["_bucket", "_sum", "_count"],
                };
                assert!(fitting.contains(&suffix), "{line}");
                assert!(value >= 0.0, "{line}");
                let before = all.samples.insert((name, labels), value);
                assert!(before.is_none(), "twice: {line}");
            }
        }
        all.check_histograms();
        all
    }

    /// Buckets add up, to `_count`.
    fn check_histograms(&self) {
        for (family, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            for (labels, count) in self.series(&format!("{family}_count")) {
                let mut buckets: Vec<(f64, f64)> = self
                    .series(&format!("{family}_bucket"))
                    .filter_map(|(all, value)| {
                        let mut all = all.clone();
                        let le = all.remove("le").expect("a bucket has a bound");
                        let le = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() };
                        (all == *labels).then_some((le, value))
                    })
                    .collect();
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                let last = *buckets.last().unwrap_or_else(|| panic!("{family}: no buckets"));
                assert_eq!(last, (f64::INFINITY, count), "{family} {labels:?}");
                assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{family}");
                assert!(self.samples.contains_key(&(format!("{family}_sum"), labels.clone())));
            }
        }
    }

    fn series(&self, name: &str) -> impl Iterator<Item = (&Labels, f64)> {
        self.samples.iter().filter(move |((it, _), _)| it == name).map(|((_, l), v)| (l, *v))
    }

    /// One series.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let key = (name.to_owned(), found.collect());
        *self.samples.get(&key).unwrap_or_else(|| panic!("no {key:?} in {:#?}", self.samples))
    }

    /// The sum of all series of a name that have these labels among theirs.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |all: &Labels| labels.iter().all(|(k, v)| all.get(*k).is_some_and(|it| it == v));
        self.series(name).filter(|(all, _)| has(all)).map(|(_, value)| value).sum()
    }

    /// No total of the server as a whole is smaller than it was.
    #[track_caller]
    pub(crate) fn assert_not_behind(&self, before: &Self) {
        for ((name, labels), value) in &before.samples {
            let grows = ["_total", "_bucket", "_sum", "_count"].iter().any(|it| name.ends_with(it));
            // Series of single processes end with these.
            if grows && !name.contains("_worker_") {
                let now = self.samples.get(&(name.clone(), labels.clone()));
                let now = now.unwrap_or_else(|| panic!("{name} {labels:?} has gone"));
                assert!(now >= value, "{name} {labels:?} went from {value} to {now}");
            }
        }
    }
}

/// `name{key="value",…} number`.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    is_name(name).then_some(())?;
    let mut labels = Labels::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (key, quoted) = inside.split_once("=\"")?;
            is_name(key).then_some(())?;
            let (value, after) = unquote(quoted)?;
            labels.insert(key.to_owned(), value).is_none().then_some(())?;
            match after.strip_prefix(',') {
                Some(more) => inside = more,
                None => {
                    rest = after.strip_prefix('}')?;
                    break;
                }
            }
        }
    }
    Some((name.to_owned(), labels, rest.strip_prefix(' ')?.parse().ok()?))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}

/// A value up to its closing quote, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(match characters.next()?.1 {
                'n' => '\n',
                it @ ('\\' | '"') => it,
                _ => return None,
            }),
            (_, other) => value.push(other),
        }
    }
}
