#!/bin/sh
# Makes of the target what the initramfs of `./x initramfs` is: /etc/steading/image.json says which image it is, and no
# program lies on the node but those in the file `programs`.
set -eu

BOARD_DIR=$(dirname "$0")
SOURCES="${BR2_EXTERNAL_STEADING_PATH}/.."

if [ ! -f "${STEADING_BASE}" ]; then
	echo "BR2_STEADING_BASE: no ${STEADING_BASE}; ./x base makes one" >&2
	exit 1
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "${SOURCES}/Cargo.toml" | head -n 1)
kernel=$(ls "${TARGET_DIR}/usr/lib/modules")
digest=$(sha256sum "${STEADING_BASE}" | cut -d ' ' -f 1)
bytes=$(stat -L -c %s "${STEADING_BASE}")
# Beside a base: what it was made of, its digest, where its tree of hashes begins, and the root of that.
stamp="${STEADING_BASE%.erofs}.stamp"
read -r _ named data_bytes root < "${stamp}"
if [ "${named}" != "${digest}" ] || [ -z "${root}" ]; then
	echo "${stamp} is not of ${STEADING_BASE}; ./x base makes both" >&2
	exit 1
fi
mkdir -p "${TARGET_DIR}/etc/steading"
cat > "${TARGET_DIR}/etc/steading/image.json" <<EOF
{
  "version": "${version}",
  "kernel": "${kernel}",
  "base_digest": "${digest}",
  "base_bytes": ${bytes},
  "base_data_bytes": ${data_bytes},
  "base_root": "${root}",
  "locked": false
}
EOF

# The archive of the initramfs is sorted: this comes last, and init sees by it that all the rest was unpacked.
: > "${TARGET_DIR}/whole"

# A program that is a link to a dropped one becomes a file of its own. Absolute links, as that of modprobe, stay.
while read -r program; do
	file="${TARGET_DIR}/${program}"
	if [ ! -e "${file}" ] && [ ! -L "${file}" ]; then
		echo "no package has installed /${program}" >&2
		exit 1
	fi
	if [ -L "${file}" ] && [ -e "${file}" ]; then
		case "$(readlink "${file}")" in
		/*)	;;
		*)	cp -L "${file}" "${file}.whole" && mv "${file}.whole" "${file}" ;;
		esac
	fi
done < "${BOARD_DIR}/programs"
for folder in usr/bin usr/sbin; do
	for file in "${TARGET_DIR}/${folder}"/*; do
		if ! grep -qFx "${folder}/${file##*/}" "${BOARD_DIR}/programs"; then
			rm -f "${file}"
		fi
	done
done
