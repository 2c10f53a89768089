//! The ledger: one SQLite file that all workers of all generations write to.
//!
//! Each worker opens it for itself, after the fork (a SQLite handle must not cross one), and a
//! thread of its own runs the statements, so that waiting for another process's lock never holds
//! up the worker's other requests.
//!
//! Write-ahead log with `synchronous = NORMAL`: what has been written survives the death of any
//! process, kill -9 included. A shop with real money would choose `FULL`, which also survives a
//! power cut and costs a disk flush for each order.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::keeper;

/// How long a statement waits for the lock of another process.
const BUSY: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS orders (
        id       INTEGER PRIMARY KEY AUTOINCREMENT,
        item     TEXT    NOT NULL,
        quantity INTEGER NOT NULL,
        state    TEXT    NOT NULL CHECK (state IN ('paid', 'shipped')),
        keeper   TEXT    NOT NULL DEFAULT ''
    ) STRICT;
    CREATE INDEX IF NOT EXISTS unshipped ON orders (id) WHERE state = 'paid';
";

/// Why the ledger did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The file cannot be used at all.
    #[error("cannot open the ledger {}: {cause}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// What SQLite says.
        cause: rusqlite::Error,
    },
    /// A statement failed.
    #[error("ledger: {0}")]
    Statement(#[from] rusqlite::Error),
    /// The ledger's thread has ended.
    #[error("the ledger is closed")]
    Closed,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The money has been taken.
    Paid,
    /// And the goods are on their way.
    Shipped,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Order {
    /// Number of the order, from 1, never used twice.
    pub(crate) id: i64,
    /// What was ordered.
    pub(crate) item: String,
    /// How many of it.
    pub(crate) quantity: u32,
    /// How far it is.
    pub(crate) state: State,
}

/// The sums of the ledger: they differ while orders are in hand, and never for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Sums {
    /// Orders that were paid, shipped or not.
    pub(crate) paid: i64,
    /// Those of them that were shipped.
    pub(crate) shipped: i64,
}

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// This worker's hand on the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    jobs: mpsc::Sender<Job>,
}

impl Ledger {
    /// Opens the file, creates it if it is missing, and starts the thread that writes to it.
    pub(crate) fn open(path: &Path) -> Result<Self, LedgerError> {
        let connection =
            connect(path).map_err(|cause| LedgerError::Open { path: path.to_owned(), cause })?;
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("ledger".into())
            .spawn(move || queue.iter().for_each(|job| job(&connection)))
            .map_err(|_| LedgerError::Closed)?;
        Ok(Self { jobs })
    }

    /// Takes down that an order is paid, in a statement of its own, and numbers it. This process is
    /// its keeper.
    pub(crate) async fn pay(&self, item: String, quantity: u32) -> Result<Order, LedgerError> {
        self.run(move |ledger| {
            let id = ledger
                .prepare_cached(
                    "INSERT INTO orders (item, quantity, state, keeper) VALUES (?, ?, 'paid', ?)",
                )?
                .insert(params![item, quantity, keeper::own()])?;
            Ok(Order { id, item, quantity, state: State::Paid })
        })
        .await
    }

    /// Takes down that an order is shipped. Doing it twice changes nothing.
    pub(crate) async fn ship(&self, id: i64) -> Result<(), LedgerError> {
        self.run(move |ledger| {
            ledger
                .prepare_cached("UPDATE orders SET state = 'shipped' WHERE id = ?")?
                .execute([id])?;
            Ok(())
        })
        .await
    }

    /// Orders that were paid and whose keepers have died; this process is their keeper now.
    pub(crate) async fn take_over(&self) -> Result<Vec<i64>, LedgerError> {
        self.run(|ledger| {
            let mut taken = Vec::new();
            let own = keeper::own();
            let keepers: Vec<String> = ledger
                .prepare_cached("SELECT DISTINCT keeper FROM orders WHERE state = 'paid'")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for dead in keepers.iter().filter(|it| !keeper::lives(it)) {
                // Only one of all workers finds them still with the dead.
                let ids = ledger
                    .prepare_cached(
                        "UPDATE orders SET keeper = ? WHERE state = 'paid' AND keeper = ?
                         RETURNING id",
                    )?
                    .query_map([&own, dead], |row| row.get(0))?
                    .collect::<Result<Vec<i64>, _>>()?;
                taken.extend(ids);
            }
            Ok(taken)
        })
        .await
    }

    /// One order.
    pub(crate) async fn find(&self, id: i64) -> Result<Option<Order>, LedgerError> {
        self.run(move |ledger| {
            ledger
                .prepare_cached("SELECT item, quantity, state FROM orders WHERE id = ?")?
                .query_row([id], |row| {
                    Ok(Order {
                        id,
                        item: row.get(0)?,
                        quantity: row.get(1)?,
                        state: match row.get_ref(2)?.as_str()? {
                            "shipped" => State::Shipped,
                            _ => State::Paid,
                        },
                    })
                })
                .optional()
        })
        .await
    }

    /// All orders, counted.
    pub(crate) async fn sums(&self) -> Result<Sums, LedgerError> {
        self.run(|ledger| {
            ledger
                .prepare_cached(
                    "SELECT count(*), (SELECT count(*) FROM orders WHERE state = 'paid')
                     FROM orders",
                )?
                .query_row([], |row| {
                    let (paid, unshipped): (i64, i64) = (row.get(0)?, row.get(1)?);
                    Ok(Sums { paid, shipped: paid - unshipped })
                })
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |ledger| {
            // Nobody may be waiting any more; the statement has been run all the same.
            let _ = answer.send(work(ledger));
        });
        self.jobs.send(job).map_err(|_| LedgerError::Closed)?;
        Ok(answered.await.map_err(|_| LedgerError::Closed)??)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // Workers of one generation start together, and two that turn the same new file to WAL at
    // the same time can be told "busy" without having waited: whoever loses tries again.
    let give_up = Instant::now() + BUSY;
    while let Err(error) = prepare(&connection) {
        let busy = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        );
        if !busy || Instant::now() > give_up {
            return Err(error);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute_batch(&format!("BEGIN IMMEDIATE;{SCHEMA}COMMIT;"))?;
    // A ledger of an older shop: orders without a keeper are left alone.
    let column = "SELECT count(*) FROM pragma_table_info('orders') WHERE name = 'keeper'";
    if connection.query_row(column, [], |row| row.get::<_, i64>(0))? == 0 {
        connection
            .execute_batch("ALTER TABLE orders ADD COLUMN keeper TEXT NOT NULL DEFAULT ''")?;
    }
    Ok(())
}
