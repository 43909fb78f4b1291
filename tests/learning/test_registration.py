import json
import subprocess
import sys
from pathlib import Path

import fcfn_abm.learning
from fcfn_abm.learning import LEARNING_RULES, SERVER_RULES
from fcfn_abm.registry import import_modules

RULE = """
from fcfn_abm.learning.base import LEARNING_RULES, LearningRule
@LEARNING_RULES.register("{name}")
class Rule(LearningRule):
    pass
"""


def test_every_file_of_the_folder_registers_a_rule():
    files = {path.stem for path in Path(fcfn_abm.learning.__file__).parent.glob("*.py")}
    rules = [registry[name] for registry in (LEARNING_RULES, SERVER_RULES) for name in registry]
    homes = {rule.__module__.removeprefix("fcfn_abm.learning.") for rule in rules}
    assert files - {"__init__", "base", "grid", "value"} <= homes


def test_a_rule_is_one_file_that_no_list_names(tmp_path):
    for name in ("zebra", "ant"):
        (tmp_path / f"my_{name}.py").write_text(RULE.format(name=name))
    code = (
        "import json, fcfn_abm.learning as learning\n"
        f"learning.__path__.append({str(tmp_path)!r})\n"
        "learning.import_modules('fcfn_abm.learning')\n"
        "print(json.dumps(list(learning.LEARNING_RULES)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [*LEARNING_RULES, "ant", "zebra"]


def test_importing_a_package_twice_changes_nothing():
    before = dict(LEARNING_RULES._entries)
    import_modules("fcfn_abm.learning")
    assert before == LEARNING_RULES._entries
