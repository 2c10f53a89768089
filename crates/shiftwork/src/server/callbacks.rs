//! The callbacks of a worker's life.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::BoxError;
use crate::worker::Worker;

/// A future of any type.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type Start<P, S> = Box<dyn Fn(Worker, Arc<P>) -> Boxed<Result<S, BoxError>> + Send + Sync>;
type Check<S> = Box<dyn Fn(Worker, Arc<S>) -> Boxed<Result<(), BoxError>> + Send + Sync>;
type Note<S> = Box<dyn Fn(Worker, Arc<S>) -> Boxed<()> + Send + Sync>;

/// What an application does at the turns of a worker's life.
pub(crate) struct Callbacks<P, S> {
    pub(crate) start: Option<Start<P, S>>,
    pub(crate) stop: Option<Note<S>>,
    pub(crate) exit: Option<Note<S>>,
    pub(crate) health: Option<Check<S>>,
    /// The state of an application that makes none.
    pub(crate) empty: Option<Box<dyn Fn() -> S + Send + Sync>>,
}

impl<P> Callbacks<P, ()> {
    pub(crate) fn none() -> Self {
        Self { start: None, stop: None, exit: None, health: None, empty: Some(Box::new(|| ())) }
    }
}

impl<P, S> Callbacks<P, S> {
    pub(crate) fn starting(start: Start<P, S>) -> Self {
        Self { start: Some(start), stop: None, exit: None, health: None, empty: None }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.start.is_none() && self.stop.is_none() && self.exit.is_none() && self.health.is_none()
    }
}
