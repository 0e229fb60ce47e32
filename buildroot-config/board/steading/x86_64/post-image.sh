#!/bin/sh
# Puts the stick together: the partitions, names and farmer.toml that `./x image` gives it.
set -eu

BOARD_DIR=$(dirname "$0")
SOURCES="${BR2_EXTERNAL_STEADING_PATH}/.."

cp -f "${SOURCES}/image/farmer.toml" "${BOARD_DIR}/grub.cfg" "${BINARIES_DIR}/"
cp -fL "${STEADING_BASE}" "${BINARIES_DIR}/base.erofs"
support/scripts/genimage.sh -c "${BOARD_DIR}/genimage.cfg"
