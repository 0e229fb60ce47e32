################################################################################
#
# steading-agent
#
################################################################################

STEADING_AGENT_VERSION = $(or \
	$(call qstrip,$(BR2_PACKAGE_STEADING_AGENT_COMMIT)), \
	$(shell git -C $(BR2_EXTERNAL_STEADING_PATH) rev-parse HEAD))
STEADING_AGENT_SITE = $(call qstrip,$(BR2_PACKAGE_STEADING_AGENT_REPOSITORY))
STEADING_AGENT_SITE_METHOD = git
STEADING_AGENT_LICENSE = Apache-2.0
STEADING_AGENT_DEPENDENCIES = \
	cryptsetup \
	host-clang \
	host-pkgconf \
	lvm2 \
	util-linux

# The root of the repository is a workspace of many programs; a node has two.
STEADING_AGENT_SUBDIR = agent

# bindgen reads the headers of libcryptsetup and libblkid through libclang.
STEADING_AGENT_CARGO_ENV = \
	LIBCLANG_PATH=$(HOST_DIR)/lib \
	BINDGEN_EXTRA_CLANG_ARGS="--sysroot=$(STAGING_DIR)"

# A commit is a hash already, and Cargo.lock in it has those of all crates.
BR_NO_CHECK_HASH_FOR += $(STEADING_AGENT_SOURCE)

STEADING_AGENT_BUILT = $(@D)/target/$(RUSTC_TARGET_NAME)/$(if $(BR2_ENABLE_DEBUG),debug,release)

# The kernel starts /init and asks /sbin/modprobe for modules: both are PID 1's program.
define STEADING_AGENT_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(STEADING_AGENT_BUILT)/init $(TARGET_DIR)/init
	$(INSTALL) -D -m 0755 $(STEADING_AGENT_BUILT)/agent $(TARGET_DIR)/usr/sbin/agent
	ln -sf /init $(TARGET_DIR)/usr/sbin/modprobe
endef

$(eval $(cargo-package))
