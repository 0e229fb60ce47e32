//! The suite that every rail must pass.
