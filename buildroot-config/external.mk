include $(sort $(wildcard $(BR2_EXTERNAL_STEADING_PATH)/package/*/*.mk))

# For the scripts in board/.
export STEADING_BASE = $(call qstrip,$(BR2_STEADING_BASE))
