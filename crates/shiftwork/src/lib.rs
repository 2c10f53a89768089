//! Shiftwork.
