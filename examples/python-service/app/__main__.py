import sys

import six

if "--check" not in sys.argv:
    print(f"Hello from Python: six {six.__version__} from {'a virtual environment' if sys.prefix == '/opt/venv' else sys.prefix}.")
