################################################################################
#
# lxcfs
#
################################################################################

LXCFS_VERSION = 6.0.4
LXCFS_SITE = https://linuxcontainers.org/downloads/lxcfs
LXCFS_LICENSE = LGPL-2.1+
LXCFS_LICENSE_FILES = COPYING LICENSE.LGPL2.1
LXCFS_DEPENDENCIES = host-pkgconf host-python-jinja2 libfuse3

# PID 1 starts it: no script of an init system.
LXCFS_CONF_OPTS = \
	-Ddocs=false \
	-Dtests=false \
	-Dfuse-version=3 \
	-Dinit-script="[]"

$(eval $(meson-package))
