@echo off
rem Untested: sets up .venv with the development requirements, then runs the tests.
setlocal
cd /d "%~dp0"
if not exist .venv\Scripts\python.exe py -3 -m venv .venv || exit /b 1
.venv\Scripts\python -m pip install -q -c constraints.txt -r requirements.txt -r requirements-dev.txt || exit /b 1
.venv\Scripts\python -m pytest %*
