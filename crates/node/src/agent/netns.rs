//! Network namespaces of Pods, entered on a thread of their own.
//!
//! `setns(2)` changes the calling thread. A thread of the runtime would carry on with other tasks inside the Pod, so each
//! entry has its own thread, which ends there. A socket made inside keeps its namespace and is driven from anywhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path cannot be opened; [`is_gone`](Error::is_gone) tells whether it does not exist.
    #[error("failed to open network namespace {path}")]
    Open {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is a file, but no namespace is bound to it: what is left after a reboot or a lazy unmount.
    #[error("failed to use {path}: no network namespace is bound there")]
    NotANamespace {
        /// The path.
        path: String,
    },
    /// The kernel refused the entry, or no thread could be started.
    #[error("failed to enter network namespace {path}")]
    Enter {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether no namespace is there any more, for certain.
    pub fn is_gone(&self) -> bool {
        match self {
            Error::Open { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Error::NotANamespace { .. } => true,
            Error::Enter { .. } => false,
        }
    }
}

/// An open network namespace; it lives at least as long as this.
#[derive(Debug, Clone)]
pub struct Netns {
    path: Arc<str>,
    file: Arc<File>,
}

impl Netns {
    /// Opens the namespace bound to `path`, for example `/run/netns/cni-1`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(path: &str) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Open {
            path: path.to_owned(),
            source,
        })?;
        let kind = fstatfs(&file).map_err(|errno| Error::Open {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(Error::NotANamespace {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.into(),
            file: Arc::new(file),
        })
    }

    /// Makes a namespace that has no name. It lives as long as a thread, a socket or an open file refers to it, and so at
    /// most as long as this process: what is in it ends with it, however the process ends.
    ///
    /// # Errors
    /// [`Error::Enter`]: the kernel refused, or no thread could be started.
    pub fn unnamed() -> Result<Self, Error> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            // The thread's own: it has left the process' namespace.
            File::open("/proc/thread-self/ns/net")
        };
        let thread = std::thread::Builder::new().name("netns".into());
        #[expect(clippy::disallowed_methods, reason = "joined in the same breath")]
        let made = thread.spawn(make).and_then(|thread| {
            let panicked = |_| io::Error::other("the thread that makes it panicked");
            thread.join().map_err(panicked)?
        });
        let file = made.map_err(|source| Error::Enter {
            path: "of its own".into(),
            source,
        })?;
        Ok(Self {
            path: format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into(),
            file: Arc::new(file),
        })
    }

    /// A descriptor of its own of the same namespace.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// The path that it was opened by, or by which others may open it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its descriptor, for `IFLA_NET_NS_FD`.
    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Runs `work` inside the namespace, on a new thread, within the calling runtime's context.
    ///
    /// # Errors
    /// [`Error::Enter`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let file = self.file.clone();
        let runtime = tokio::runtime::Handle::current();
        let body = move || {
            let entered = setns(file.as_fd(), CloneFlags::CLONE_NEWNET);
            let result = entered.map(|()| {
                let _context = runtime.enter();
                work()
            });
            // The caller may have gone away; then nobody wants the result.
            let _ = sender.send(result);
        };
        let fail = |source| Error::Enter {
            path: self.path.to_string(),
            source,
        };
        let thread = std::thread::Builder::new().name("netns".into());
        #[expect(
            clippy::disallowed_methods,
            reason = "its result is awaited, and a panic is an error here"
        )]
        thread.spawn(body).map_err(fail)?;
        match receiver.await {
            Ok(result) => result.map_err(|errno: Errno| fail(errno.into())),
            Err(_) => Err(fail(io::Error::other("the thread inside it panicked"))),
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
