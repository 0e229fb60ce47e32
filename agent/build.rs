//! Lets the agent run from the tree: the libraries that its libraries name (LVM's
//! libdevmapper-event) stand in the sysroot too, and only the older kind of run path is
//! looked at for those. The initramfs removes it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags");
}
