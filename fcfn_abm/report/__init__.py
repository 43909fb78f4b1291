"""Reports made from records alone. Import the modules: figures load matplotlib, tables do not."""

import logging

# without a folder of its own that it may write, matplotlib uses a temporary one and warns
logging.getLogger("matplotlib").addFilter(
    lambda record: record.funcName != "_get_config_or_cache_dir"
)
