//! Threads that are started once and kept.
//!
//! Each has a name and a small stack. A failed start is an error, never a panic.
//!
//! `std::thread` allocates a stack for signal handlers inside the new thread and panics there on
//! failure, so one failed `mmap` aborts the process. These threads have no such stack, so
//! everything that can fail does so before [`spawn`] returns.

use std::ffi::{CString, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

type Body = Box<dyn FnOnce() + Send>;

/// Starts a detached thread that runs `body`.
///
/// The kernel shows the first 15 bytes of `name`. The stack has `stack_bytes`, or the C library's
/// minimum if that is more. A panic in `body` ends only the thread.
///
/// # Errors
/// If the kernel has no memory or no process number for the thread.
pub fn spawn(
    name: &str,
    stack_bytes: usize,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let name = CString::new(name)?;
    let named: Body = Box::new(move || {
        set_name(&name);
        body();
    });
    let argument = Box::into_raw(Box::new(named));
    let started = create(stack_bytes, argument.cast());
    if started.is_err() {
        // SAFETY: no thread was created, so the pointer that `Box::into_raw` just returned is still
        // exclusively ours.
        #[allow(unsafe_code)]
        drop(unsafe { Box::from_raw(argument) });
    }
    started
}

/// Starts a thread that does nothing and waits for its end.
///
/// # Errors
/// If the kernel has no memory or no process number for the thread.
pub fn try_one() -> io::Result<()> {
    let tried = std::thread::Builder::new().spawn(|| ())?;
    // It does nothing, so it cannot panic.
    let _ = tried.join();
    Ok(())
}

/// Creates a thread.
///
/// `argument` points to a boxed [`Body`], which the thread owns if it is created.
fn create(stack_bytes: usize, argument: *mut c_void) -> io::Result<()> {
    let mut attributes = MaybeUninit::uninit();
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the first call initialises the attributes. They are used between that call and the
    // last, and outlive both. `run` takes what `argument` points to, and the caller gives it up if
    // this succeeds. The thread is detached, so its number is not needed.
    #[allow(unsafe_code)]
    unsafe {
        check(libc::pthread_attr_init(attributes.as_mut_ptr()))?;
        let least = libc::sysconf(libc::_SC_THREAD_STACK_MIN);
        let stack_bytes = stack_bytes.max(usize::try_from(least).unwrap_or(0));
        let (attributes, detached) = (attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        let created = check(libc::pthread_attr_setstacksize(attributes, stack_bytes))
            .and_then(|()| check(libc::pthread_attr_setdetachstate(attributes, detached)))
            .and_then(|()| {
                check(libc::pthread_create(
                    thread.as_mut_ptr(),
                    attributes,
                    run,
                    argument,
                ))
            });
        libc::pthread_attr_destroy(attributes);
        created
    }
}

extern "C" fn run(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made this pointer from a boxed `Body` and gave it up to this thread.
    #[allow(unsafe_code)]
    let body = unsafe { Box::from_raw(argument.cast::<Body>()) };
    // The panic hook has logged the panic. Unwinding out of here would abort the process.
    let _ = catch_unwind(AssertUnwindSafe(*body));
    ptr::null_mut()
}

fn set_name(name: &CString) {
    // The kernel refuses longer names.
    let name = &name.as_bytes()[..name.as_bytes().len().min(15)];
    if let Ok(name) = CString::new(name) {
        // Not fatal: only `ps` and debuggers show the name.
        let _ = rustix::thread::set_name(&name);
    }
}

fn check(error: i32) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::spawn;
    use std::sync::mpsc::channel;

    /// Enough for printing the backtrace of a panic.
    const STACK_BYTES: usize = 512 * 1024;

    #[test]
    fn thread_has_its_name_and_contains_its_panic() {
        let (tell, told) = channel();
        spawn("a name that is too long", STACK_BYTES, move || {
            let name = std::fs::read_to_string("/proc/thread-self/comm");
            tell.send(name.expect("the name of this thread"))
                .expect("the receiver exists");
            panic!("on purpose");
        })
        .expect("a thread");
        assert_eq!(told.recv().expect("it ran"), "a name that is \n");
        // The sender is dropped while the panic unwinds, and the process continues.
        told.recv().expect_err("it ended");
    }

    #[test]
    fn impossible_stack_size_is_an_error() {
        let error = spawn("huge", usize::MAX / 4, || unreachable!()).expect_err("no such stack");
        assert!(error.raw_os_error().is_some(), "{error}");
    }

    #[test]
    fn name_with_nul_is_an_error() {
        spawn("\0", STACK_BYTES, || unreachable!()).expect_err("no such name");
    }
}
