//! What `ps` shows: the memory of the arguments, written over.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The memory in which the kernel put arguments and environment.
#[derive(Debug, Clone, Copy)]
struct Area {
    start: usize,
    /// Bytes of the arguments.
    arguments: usize,
    /// Bytes of the arguments and, behind them, the environment.
    len: usize,
}

/// argv, as the C library gives it to functions that run before main (glibc does, musl does not).
static ARGUMENTS: AtomicPtr<*mut libc::c_char> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn remember_arguments(
    _count: libc::c_int,
    arguments: *mut *mut libc::c_char,
    _environment: *mut *mut libc::c_char,
) {
    if cfg!(target_env = "gnu") {
        ARGUMENTS.store(arguments, Ordering::Relaxed);
    }
}

// SAFETY: the section holds pointers to functions of exactly this type; the function only stores
// a pointer, so it needs nothing that is set up later.
#[unsafe(link_section = ".init_array")]
#[used]
static REMEMBER: extern "C" fn(libc::c_int, *mut *mut libc::c_char, *mut *mut libc::c_char) =
    remember_arguments;

static AREA: OnceLock<Option<Area>> = OnceLock::new();

/// Makes room for titles: remembers where the arguments are, and moves the environment away from
/// behind them. Once, early, with one thread; later calls do nothing. `std::env::args` and getenv
/// go on as before. Where kernel or C library do not tell, only the short name changes.
pub fn prepare_title() {
    AREA.get_or_init(|| {
        if super::thread_names().len() != 1 {
            return None;
        }
        let area = find_area()?;
        let arguments = ARGUMENTS.load(Ordering::Relaxed);
        // SAFETY: null, or an array that has at least its end.
        let known = unsafe { !arguments.is_null() && (*arguments).addr() == area.start };
        if !known {
            // They would be overwritten, for whoever reads them later.
            return None;
        }
        move_environment(area);
        // SAFETY: argv is an array that ends with null, and there is one thread.
        unsafe { move_strings(arguments, area) };
        Some(area)
    });
}

/// arg_start and env_end of proc_pid_stat(5), fields 48 and 51.
fn find_area() -> Option<Area> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<usize>().ok();
    let (start, arguments_end, environment_start, end) =
        (field(48)?, field(49)?, field(50)?, field(51)?);
    // Only if nothing is in between does the kernel read on behind the arguments.
    let adjacent = start < arguments_end && arguments_end == environment_start;
    let arguments = arguments_end.checked_sub(start)?;
    (adjacent && environment_start <= end).then(|| Area { start, arguments, len: end - start })
}

fn move_environment(area: Area) {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: the array ends with null, and there is one thread, so nobody changes it meanwhile.
    unsafe { move_strings(environ, area) };
}

/// Copies the strings of an array that lie in the area to the heap, for good.
///
/// # Safety
/// `entry` is null or an array of C strings that ends with null and that nobody else uses.
unsafe fn move_strings(mut entry: *mut *mut libc::c_char, area: Area) {
    if entry.is_null() {
        return;
    }
    // SAFETY: the caller's promise; the end is not passed.
    unsafe {
        while !(*entry).is_null() {
            let address = (*entry).expose_provenance();
            if (area.start..area.start + area.len).contains(&address) {
                *entry = CString::from(CStr::from_ptr(*entry)).into_raw();
            }
            entry = entry.add(1);
        }
    }
}

/// Sets what `ps` shows for this process; works in every process forked after [`prepare_title`].
pub fn set_title(title: &str) {
    // The kernel keeps 15 bytes of it.
    if let Ok(short) = CString::new(cut(title, 15).trim_end()) {
        let _ = rustix::thread::set_name(&short);
    }
    let Some(Some(area)) = AREA.get() else { return };
    let bytes = cut(title, area.len - 1).as_bytes();
    let kept = bytes.len();
    // SAFETY: the area is this process's own initial stack, writable, and since prepare_title
    // neither argv nor the environment points into it.
    unsafe {
        let start = std::ptr::with_exposed_provenance_mut::<u8>(area.start);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, kept);
        std::ptr::write_bytes(start.add(kept), 0, area.len - kept);
        // Something else than zero at the end of the arguments tells the kernel that this is a
        // title; it shows that up to its first zero, and not the room behind it.
        if kept < area.arguments {
            start.add(area.arguments - 1).write(b'.');
        }
    }
}

/// As much of a text as fits into `len` bytes without breaking a character or holding a zero.
fn cut(text: &str, len: usize) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    &text[..text.floor_char_boundary(len)]
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn titles_are_cut_between_characters() {
        assert_eq!(cut("shop: worker 0 (gen 7)", 15), "shop: worker 0 ");
        assert_eq!(cut("b\u{e4}ck", 2), "b");
        assert_eq!(cut("a\0b", 10), "a");
        assert_eq!(cut("", 0), "");
    }
}
