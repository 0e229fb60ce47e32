//! The one thread that speaks to liblvm2cmd and libcryptsetup.
//!
//! Both libraries keep global state, and libdevmapper below each (its log function, its list of
//! pending node operations) does, and libcryptsetup's binding refuses a second thread by a panic. So
//! there is one thread, and callers hand it closures. There is no lock in its place on purpose:
//! a lock would let a C library see its thread-local state (`errno`, the thread keyring, LVM's
//! memory pools) from many threads in turn.
//!
//! A panic in a closure is caught and told to its caller; the thread goes on. No child of this process begins while a
//! closure runs, so a closure runs no program.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use host::command::Starts;
use libcryptsetup_rs::CryptDevice;

use crate::luks::Luks;
use crate::lvm::{Lvm, LvmError, LvmSession};
use crate::verity::Verity;

/// Room for LVM's own use: it reserves and touches stack ahead of critical sections.
const STACK_BYTES: usize = 8 << 20;

type Job = Box<dyn FnOnce(&mut Libraries) + Send>;

/// What lives on the owner thread, and nowhere else.
pub(crate) struct Libraries {
    pub(crate) lvm: LvmSession,
    /// By mapping: volumes that this process made and has not closed since. Those without a key slot yet have their
    /// volume keys in here, and in the kernel.
    pub(crate) made: HashMap<String, Option<CryptDevice>>,
    /// By volume group: the disk that it lies on, as far as it was asked for.
    pub(crate) disks: HashMap<String, PathBuf>,
}

/// Why the owner thread did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OwnerError {
    /// The thread could not be started.
    #[error("the storage thread did not start: {0}")]
    NotStarted(String),
    /// The thread has ended.
    #[error("the storage thread has ended")]
    Gone,
    /// The call panicked: a defect in a binding or here.
    #[error("a storage call panicked: {0}")]
    Panicked(String),
}

/// A handle to the owner thread, which lives as long as the process.
///
/// Calls block until the library has answered: tens to hundreds of milliseconds. From async code
/// call them on a blocking thread.
#[derive(Clone)]
pub struct Storage {
    jobs: mpsc::Sender<Job>,
}

impl Storage {
    /// The storage of this process: the first call starts the thread and LVM in it, with the
    /// configuration under [`crate::lvm::CONFIG_DIR`]; later ones give handles to the same thread.
    /// There can be no second one: libcryptsetup's binding is bound to the first thread for good.
    ///
    /// # Errors
    /// When the configuration is somebody else's or cannot be written, or LVM does not start. It
    /// may be tried again.
    pub fn start() -> Result<Self, LvmError> {
        static STARTED: Mutex<Option<Storage>> = Mutex::new(None);
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(storage) = &*started {
            return Ok(storage.clone());
        }
        crate::lvm::config::write(Path::new(crate::lvm::CONFIG_DIR))?;
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, answer) = mpsc::channel();
        std::thread::Builder::new()
            .name("storage".into())
            .stack_size(STACK_BYTES)
            .spawn(move || own(&queue, &ready))
            .map_err(|e| OwnerError::NotStarted(e.to_string()))?;
        answer.recv().map_err(|_| OwnerError::Gone)??;
        Ok(started.insert(Self { jobs }).clone())
    }

    /// LVM.
    pub fn lvm(&self) -> Lvm {
        Lvm::new(self.clone())
    }

    /// LUKS.
    pub fn luks(&self) -> Luks {
        Luks::new(self.clone())
    }

    /// dm-verity.
    pub fn verity(&self) -> Verity {
        Verity::new(self.clone())
    }

    /// Runs `job` on the owner thread and waits for its answer.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Libraries) -> T + Send + 'static,
    ) -> Result<T, OwnerError> {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move |libraries| {
            let result = catch_unwind(AssertUnwindSafe(|| job(libraries)));
            // The caller may have gone; its work is done all the same.
            let _ = answer.send(result.map_err(|panic| words(panic.as_ref())));
        });
        self.jobs.send(job).map_err(|_| OwnerError::Gone)?;
        answered
            .recv()
            .map_err(|_| OwnerError::Gone)?
            .map_err(OwnerError::Panicked)
    }
}

fn own(queue: &mpsc::Receiver<Job>, ready: &mpsc::Sender<Result<(), LvmError>>) {
    let lvm = match LvmSession::start() {
        Ok(lvm) => lvm,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let mut libraries = Libraries {
        lvm,
        made: HashMap::new(),
        disks: HashMap::new(),
    };
    while let Ok(job) = queue.recv() {
        // Both open disks without O_CLOEXEC, LVM some of them alone.
        let _open = Starts::hold();
        job(&mut libraries);
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
