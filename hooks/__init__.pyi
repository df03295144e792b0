from .capture import Capture as Capture
from .errors import StepscopeWarning as StepscopeWarning
from .families import register as register
from .families import register_pipeline as register_pipeline
from .recorder import record as record
from .recording import Recording as Recording
from .verify import Finding as Finding
from .verify import verify as verify
